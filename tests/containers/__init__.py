"""The real image and the real compose files, run by Podman: `make test-containers`. No Docker engine is needed."""
