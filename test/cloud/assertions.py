"""JWTs as the token endpoint sees them: taken apart and verified with plain arithmetic.

A key is {"n": hexadecimal modulus, "e": exponent}; the standard library has no RSA, but
verifying is one pow() and a comparison.
"""

import base64
import binascii
import hashlib
import json

SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


class BadToken(Exception):
    """Not a JWT that could be looked at."""


def decode(text):
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadToken("not base64url") from None


class Jwt:
    def __init__(self, text):
        parts = text.split(".")
        if len(parts) != 3:
            raise BadToken("a JWT has three parts")
        try:
            self.header, self.claims = (json.loads(decode(part)) for part in parts[:2])
        except ValueError:
            raise BadToken("header and claims are JSON") from None
        if not isinstance(self.header, dict) or not isinstance(self.claims, dict):
            raise BadToken("header and claims are objects")
        self.signed = f"{parts[0]}.{parts[1]}".encode()
        self.signature = decode(parts[2])

    def verifies(self, key):
        modulus = int(key["n"], 16)
        size = (modulus.bit_length() + 7) // 8
        if len(self.signature) != size:
            return False
        block = pow(int.from_bytes(self.signature, "big"), int(key.get("e", 65537)), modulus).to_bytes(size, "big")
        digest = hashlib.sha256(self.signed).digest()
        algorithm = self.header.get("alg")
        if algorithm == "RS256":
            padding = b"\xff" * (size - 3 - len(SHA256_PREFIX) - len(digest))
            return block == b"\x00\x01" + padding + b"\x00" + SHA256_PREFIX + digest
        if algorithm == "PS256":
            return pss_verifies(block, digest, modulus.bit_length() - 1)
        return False


def mask(seed, length):
    out = b""
    for counter in range((length + 31) // 32):
        out += hashlib.sha256(seed + counter.to_bytes(4, "big")).digest()
    return out[:length]


def pss_verifies(block, digest, bits):
    """RFC 8017 section 9.1.2 with SHA-256, MGF1 and a salt as long as the digest."""
    size = (bits + 7) // 8
    block = block[-size:]
    if block[-1] != 0xBC:
        return False
    masked, found = block[:size - 33], block[size - 33:-1]
    data = bytearray(a ^ b for a, b in zip(masked, mask(found, len(masked))))
    data[0] &= 0xFF >> (8 * size - bits)
    salt = bytes(data[-32:])
    if data[:-33] != bytes(len(data) - 33) or data[-33] != 1:
        return False
    return hashlib.sha256(bytes(8) + digest + salt).digest() == found
