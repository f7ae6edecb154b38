"""The store on disk or in a bucket: its writer, its index, its reader."""
