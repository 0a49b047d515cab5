"""The machine: processor, clocks, temperature, Jetson module and NVIDIA packages."""
