"""What tests, the self-test and the benchmarks share: procedural shapes, cases for each op, comparison of results."""
