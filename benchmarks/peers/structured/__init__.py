"""Models of ``benchmarks.svi`` beyond the VAE of one vector: as they are declared, and as they are written by hand."""
