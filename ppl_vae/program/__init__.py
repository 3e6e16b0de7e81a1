"""What a probabilistic program is: the pair, its plates, sites, traces and how it is captured and replayed."""
