"""Parts of the benchmarks of speed: data, the process of a fit, the plain path, what a step is made of."""
