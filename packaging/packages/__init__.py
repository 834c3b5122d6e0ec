"""Builds the deb, the rpm and the tarball: `make packages`. See packaging/README.md."""
