"""The C interface from Python, with ctypes alone. Prints what example.c prints.

usage: bigsmall.py LIBRARY FILE [BASE...]
"""

import ctypes
import sys

U64, SIZE, POINTER = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("name_len", SIZE),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(U64)),
        ("dims", SIZE),
        ("offset", U64),
        ("len", U64),
        ("dlpack_code", ctypes.c_uint8),
        ("dlpack_bits", ctypes.c_uint8),
    ]


class Bigsmall:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        for name, result, arguments in [
            ("error", ctypes.c_char_p, []),
            ("open", ctypes.c_int, [ctypes.c_char_p, ctypes.POINTER(POINTER), SIZE, ctypes.POINTER(POINTER)]),
            ("close", None, [POINTER]),
            ("len", U64, [POINTER]),
            ("tensor_count", SIZE, [POINTER]),
            ("tensor_at", ctypes.c_int, [POINTER, SIZE, ctypes.POINTER(Tensor)]),
            ("read", ctypes.c_int, [POINTER, U64, POINTER, SIZE]),
            ("gpu_open", ctypes.c_int, [ctypes.c_int, ctypes.POINTER(POINTER)]),
            ("gpu_close", None, [POINTER]),
            ("read_to_gpu", ctypes.c_int, [POINTER, POINTER, U64, U64, SIZE, POINTER]),
        ]:
            function = getattr(self.library, f"bigsmall_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, self.checked(function) if result is ctypes.c_int else function)

    def checked(self, function):
        def call(*arguments):
            code = function(*arguments)
            if code:
                sys.exit(f"error {code}: {self.error().decode()}")

        return call

    def file(self, path, bases=()):
        file = POINTER()
        self.open(path.encode(), (POINTER * len(bases))(*bases), len(bases), ctypes.byref(file))
        return file

    def tensors(self, file):
        for number in range(self.tensor_count(file)):
            tensor = Tensor()
            self.tensor_at(file, number, ctypes.byref(tensor))
            yield tensor

    def bytes(self, file, tensor):
        buffer = ctypes.create_string_buffer(max(tensor.len, 1))
        self.read(file, tensor.offset, buffer, tensor.len)
        return buffer.raw[: tensor.len]


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def main():
    bigsmall = Bigsmall(sys.argv[1])
    bases = [bigsmall.file(path) for path in sys.argv[3:]]
    file = bigsmall.file(sys.argv[2], bases)
    for base in bases:
        bigsmall.close(base)
    print(bigsmall.len(file), "bytes")
    for tensor in bigsmall.tensors(file):
        data, shape = bigsmall.bytes(file, tensor), tensor.shape[: tensor.dims]
        name, dtype = tensor.name.decode(), tensor.dtype.decode()
        print(f"{name} {dtype} {tensor.dlpack_code}:{tensor.dlpack_bits} {shape} {tensor.len} {fnv(data):016x}")
    bigsmall.close(file)


if __name__ == "__main__":
    main()
