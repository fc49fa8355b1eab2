"""What a folder holds and who vouches for it: manifests of SHA-256 hashes, and signatures over them."""
