"""What the benchmark measures, and how, is said in README.md beside this file."""
