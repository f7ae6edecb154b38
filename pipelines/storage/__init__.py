"""One way to files: folders and object stores, leases, retries, secrets in addresses, YAML."""
