"""Uploads a folder to a container of Azure, which is created if need be: upload_to_azure.py CONTAINER FOLDER PREFIX, with the
connection in AZURE_STORAGE_CONNECTION_STRING."""

import os
import sys
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import ContainerClient

container, folder, prefix = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
client = ContainerClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"], container)
try:
    client.create_container()
except ResourceExistsError:
    pass
for file in sorted(it for it in folder.rglob("*") if it.is_file()):
    client.upload_blob(f"{prefix}/{file.relative_to(folder)}", file.read_bytes(), overwrite=True)
