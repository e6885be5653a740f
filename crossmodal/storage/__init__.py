"""The object store, by way of obstore: folders, S3, Google Cloud, Azure, memory.

Keys: `inputs/<aa>/<sha256>` for uploaded pictures, `results/<job>/…` for the output of jobs, and
`previews/<job>/…` for previews of running jobs.
"""

from crossmodal.storage.store import Storage, StoredBlob, is_folder, open_storage

__all__ = ["Storage", "StoredBlob", "is_folder", "open_storage"]
