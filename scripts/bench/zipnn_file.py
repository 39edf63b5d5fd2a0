"""Compresses a file with ZipNN, whose package has a library and no command:

    zipnn_file.py compress|decompress DTYPE THREADS SOURCE TARGET
"""

import sys
from pathlib import Path

from zipnn import ZipNN

action, dtype, threads, source, target = sys.argv[1:]
# Its entropy coder for weights; with "AUTO" it tries others and chooses this one for all of the files here.
zipnn = ZipNN(method="HUFFMAN", input_format="byte", bytearray_dtype=dtype, threads=int(threads))
data = Path(source).read_bytes()
# It changes the buffer that it compresses.
Path(target).write_bytes(zipnn.compress(bytearray(data)) if action == "compress" else zipnn.decompress(data))
