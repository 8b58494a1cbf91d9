#!/usr/bin/env python3
"""Envelope v1, written a second time: prints the vector that store/seal/tests.rs expects (pip install cryptography)."""
import hashlib, hmac, struct
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def hkdf(key, salt, info):
    prk = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def hchacha20(key, nonce):
    s = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))

    def rotate(v, n):
        return (v << n | v >> 32 - n) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotate(s[z] ^ s[x], n)

    for _ in range(10):
        for q in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                  (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            quarter(*q)
    return struct.pack("<8I", *s[0:4], *s[12:16])


def seal(root, store, tenant, record, kind, incarnation, generation, key_id, clear, nonce, json):
    key = hkdf(root, store, b"rec/v1" + tenant + record)
    text = struct.pack(">I", len(json)) + json
    text += bytes(-len(text) % 256)
    fields = [b"pilotlight/env1", store, tenant, record, kind, incarnation, generation, struct.pack(">I", key_id), *clear]
    aad = b"".join(struct.pack(">Q", len(field)) + field for field in fields)
    sealed = ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], text, aad)
    return b"\x01" + struct.pack(">I", key_id) + nonce + sealed


VECTOR = seal(
    root=bytes(range(32)), store=b"S" * 16, tenant=b"", record=b"R" * 32, kind=b"credential", incarnation=b"I" * 16,
    generation=struct.pack(">Q", 7), key_id=1, clear=[b"C" * 32], nonce=bytes(range(100, 124)), json=b'"a secret"',
)

if __name__ == "__main__":
    print(VECTOR.hex())
