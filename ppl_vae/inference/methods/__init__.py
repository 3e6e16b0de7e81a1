"""The methods by which a pair is fitted."""
