#!/usr/bin/env python3
"""Lists the backups of a Blockferry repository and rebuilds disks from its folder, without Blockferry.

  blockferry_rescue.py list FOLDER [--secret-file FILE]
  blockferry_rescue.py restore FOLDER BACKUP DISK OUT [--secret-file FILE] [--no-digest]

FOLDER is the one that holds the file `repository`. OUT must not be there; it becomes a raw disk image
with holes. Every block is compared with the name it is stored under, which takes about a minute for
50 MB in plain Python; --no-digest leaves that out, and what is damaged may then go unnoticed.

Of an encrypted repository FILE holds, in its first line, a passphrase or the recovery key.

Needs Python 3.9 and the shared libraries liblz4.so.1 and libzstd.so.1, for an encrypted repository
libcrypto.so.3 as well, nothing else. Written from docs/repository-format.md alone, which says what
every byte means.

Exit codes: 0 done, 1 failed, 2 usage.
"""

import argparse
import ctypes
import functools
import hashlib
import os
import struct
import sys

BLOCK_SIZE = 65536
PAGE_SIZE = 4096
FAN_OUT = 64
CHUNK, MAP_NODE, PATCH = 1, 2, 3
STORED, LZ4, ZSTD = 0, 1, 2
PASSPHRASE, KEY = 1, 2
TAG_SIZE = 16


class Damage(Exception):
    """Something in the repository cannot be used; the text says what and where."""


# --- BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs), the plain and the slow way ---

_INITIAL = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT, _KEYED, _DERIVE_CONTEXT, _DERIVE_KEY = 1, 2, 4, 8, 16, 32, 64
_MASK = 0xFFFFFFFF


def _schedule():
    order = list(range(16))
    rounds = []
    for _ in range(7):
        rounds.append(tuple(order))
        order = [order[i] for i in _PERMUTATION]
    return rounds


_ROUNDS = _schedule()
_QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
             (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def _compress(chain, words, counter, size, flags):
    v = list(chain) + [*_INITIAL[:4], counter & _MASK, counter >> 32 & _MASK, size, flags]
    for order in _ROUNDS:
        for half, (a, b, c, d) in enumerate(_QUARTERS):
            va = v[a] + v[b] + words[order[2 * half]] & _MASK
            vd = v[d] ^ va
            vd = (vd >> 16 | vd << 16) & _MASK
            vc = v[c] + vd & _MASK
            vb = v[b] ^ vc
            vb = (vb >> 12 | vb << 20) & _MASK
            va = va + vb + words[order[2 * half + 1]] & _MASK
            vd ^= va
            vd = (vd >> 8 | vd << 24) & _MASK
            vc = vc + vd & _MASK
            vb ^= vc
            v[a], v[b], v[c], v[d] = va, (vb >> 7 | vb << 25) & _MASK, vc, vd
    return [v[i] ^ v[i + 8] for i in range(8)]


def _words(block):
    return struct.unpack("<16I", block.ljust(64, b"\0"))


def _chunk_node(key, data, counter, flags):
    """The last compression of a piece of at most 1024 bytes, not yet done."""
    chain = key
    blocks = [data[at:at + 64] for at in range(0, len(data), 64)] or [b""]
    for number, block in enumerate(blocks):
        own = flags | (_CHUNK_START if number == 0 else 0)
        if number == len(blocks) - 1:
            return chain, _words(block), counter, len(block), own | _CHUNK_END
        chain = _compress(chain, _words(block), counter, 64, own)
    raise AssertionError("a piece has at least one block")


def _tree_node(key, data, counter, flags):
    if len(data) <= 1024:
        return _chunk_node(key, data, counter, flags)
    left_size = 1024
    while left_size * 2 < len(data):
        left_size *= 2
    left = _compress(*_tree_node(key, data[:left_size], counter, flags))
    right = _compress(*_tree_node(key, data[left_size:], counter + left_size // 1024, flags))
    return key, tuple(left + right), 0, 64, flags | _PARENT


def _blake3(key, data, flags):
    chain, words, counter, size, own = _tree_node(key, data, 0, flags)
    return struct.pack("<8I", *_compress(chain, words, counter, size, own | _ROOT))


def blake3(data):
    return _blake3(_INITIAL, data, 0)


def blake3_keyed(key, data):
    return _blake3(struct.unpack("<8I", key), data, _KEYED)


def blake3_derive(context, key):
    context_key = _blake3(_INITIAL, context.encode(), _DERIVE_CONTEXT)
    return _blake3(struct.unpack("<8I", context_key), key, _DERIVE_KEY)


# --- Decoding ---

@functools.lru_cache(maxsize=None)
def _library(name):
    return ctypes.CDLL(name)


def decode(codec, encoded, plain_size):
    if codec == STORED:
        if len(encoded) != plain_size:
            raise Damage("it holds %d bytes, %d are expected" % (len(encoded), plain_size))
        return encoded
    out = ctypes.create_string_buffer(plain_size)
    if codec == LZ4:
        decompress = _library("liblz4.so.1").LZ4_decompress_safe
        size = decompress(encoded, out, ctypes.c_int(len(encoded)), ctypes.c_int(plain_size))
    elif codec == ZSTD:
        decompress = _library("libzstd.so.1").ZSTD_decompress
        decompress.restype = ctypes.c_size_t
        size = decompress(out, ctypes.c_size_t(plain_size), encoded, ctypes.c_size_t(len(encoded)))
    else:
        raise Damage("its codec is %d" % codec)
    if size != plain_size:
        raise Damage("it cannot be decoded")
    return out.raw


# --- Encryption ---

def open_sealed(key, nonce, clear, sealed):
    """AES-256-GCM: the plain bytes, or damage."""
    crypto = _library("libcrypto.so.3")
    crypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
    crypto.EVP_aes_256_gcm.restype = ctypes.c_void_p
    context = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
    cipher = ctypes.c_void_p(crypto.EVP_aes_256_gcm())
    if len(sealed) < TAG_SIZE:
        raise Damage("it is cut off")
    size = ctypes.c_int()
    plain = ctypes.create_string_buffer(max(1, len(sealed) - TAG_SIZE))
    set_tag = 0x11
    try:
        crypto.EVP_DecryptInit_ex(context, cipher, None, key, nonce)
        crypto.EVP_DecryptUpdate(context, None, ctypes.byref(size), clear, len(clear))
        crypto.EVP_DecryptUpdate(context, plain, ctypes.byref(size), sealed, len(sealed) - TAG_SIZE)
        crypto.EVP_CIPHER_CTX_ctrl(context, set_tag, TAG_SIZE, sealed[-TAG_SIZE:])
        if crypto.EVP_DecryptFinal_ex(context, None, ctypes.byref(size)) != 1:
            raise Damage("it cannot be decrypted")
    finally:
        crypto.EVP_CIPHER_CTX_free(context)
    return plain.raw[:len(sealed) - TAG_SIZE]


def read_secret(path):
    """kind and bytes of the secret in the first line of a file"""
    with open(path, "rb") as file:
        line = file.readline().rstrip(b"\r\n")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Damage("%s is not UTF-8" % path) from None
    key = recovery_key(text)
    return (PASSPHRASE, text.encode()) if key is None else (KEY, key)


def recovery_key(text):
    """The 32 bytes of a recovery key, None for any other text."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    if not text.lower().startswith("bfkey-"):
        return None
    letters = "".join(text[6:].upper().replace("-", "").split()).translate(str.maketrans("OIL", "011"))
    if len(letters) != 56 or any(letter not in alphabet for letter in letters):
        return None
    number = functools.reduce(lambda sum, letter: sum << 5 | alphabet.index(letter), letters, 0)
    # 256 bits of the key, four of padding, 20 of a checksum.
    key = (number >> 24).to_bytes(32, "big")
    checksum = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 12
    if number & 0xFFFFFF != checksum:
        raise Damage("the recovery key is mistyped: its checksum does not fit")
    return key


# --- The folder ---

class Fields:
    """Takes fields one after the other; running out of bytes is damage."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def bytes(self, size):
        taken = self.data[self.at:self.at + size]
        if len(taken) != size:
            raise Damage("it is cut off")
        self.at += size
        return taken

    def number(self, size):
        return int.from_bytes(self.bytes(size), "little")

    def text(self):
        return self.bytes(self.number(2)).decode("utf-8", "replace")


class Repository:
    def __init__(self, folder, secret):
        self.folder = folder
        path = os.path.join(folder, "repository")
        with open(path, "rb") as file:
            data = file.read(128)
        if len(data) != 128 or data[:8] != b"BFERRY\r\n":
            raise Damage("%s is not that of a repository" % path)
        version, block_size = struct.unpack("<II", data[8:16])
        if version != 1:
            raise Damage("%s has format version %d; this program reads version 1" % (path, version))
        if blake3(data[:96]) != data[96:]:
            raise Damage("%s has a wrong checksum" % path)
        if block_size != BLOCK_SIZE:
            raise Damage("%s has blocks of %d bytes" % (path, block_size))
        self.id = data[16:32]
        naming_key = data[32:64]
        flags = int.from_bytes(data[64:68], "little")
        if flags > 1:
            raise Damage("%s has flags %d that this program does not know" % (path, flags))
        self.record_key = None
        if flags == 1:
            naming_key, self.record_key = self.unlock(secret)
        self.chunk_key = blake3_derive("Blockferry v1 chunk name", naming_key)
        self.node_key = blake3_derive("Blockferry v1 map node name", naming_key)
        self.manifest_key = blake3_derive("Blockferry v1 manifest code", naming_key)
        self.places = None
        self.passed_over = []

    def unlock(self, secret):
        """naming key and record key, from the key slot that the secret opens"""
        if secret is None:
            raise Damage("the repository is encrypted; name a file with a passphrase or the "
                         "recovery key by --secret-file")
        kind, text = secret
        keys = os.path.join(self.folder, "keys")
        for name in sorted(os.listdir(keys)):
            if not name.endswith(".key"):
                continue
            with open(os.path.join(keys, name), "rb") as file:
                slot = file.read(1024)
            if slot[:8] != b"BFKEYSL\n" or blake3(slot[:-32]) != slot[-32:]:
                continue
            fields = Fields(slot[:-32])
            fields.bytes(8)
            version, own_kind = fields.number(4), fields.number(4)
            repository_id, _, salt = fields.bytes(16), fields.bytes(8), fields.bytes(32)
            log2_n, r, p, _ = (fields.number(4) for _ in range(4))
            fields.text()
            if version != 1 or own_kind != kind or repository_id != self.id:
                continue
            if kind == PASSPHRASE:
                wrapping = hashlib.scrypt(text, salt=salt, n=1 << log2_n, r=r, p=p,
                                          maxmem=512 << 20, dklen=32)
            else:
                wrapping = blake3_derive("Blockferry v1 key slot", text + salt)
            try:
                both = open_sealed(wrapping, bytes(12), slot[:fields.at], slot[fields.at:-32])
                return both[:32], both[32:]
            except Damage:
                continue
        raise Damage("the secret opens none of the repository's key slots")

    def open_record(self, seal, clear, sealed):
        key = blake3_keyed(self.record_key, seal[:10])
        return open_sealed(key, seal[10:] + bytes(6), clear, sealed)

    def manifests(self):
        """Those that can be read, in the order of VM and sequence; the others are told."""
        root = os.path.join(self.folder, "manifests")
        for vm in sorted(os.listdir(root)):
            names = sorted(os.listdir(os.path.join(root, vm)))
            # A mark is the name of its manifest with an id, a time and its kind.
            marks = {(name.rsplit(".", 3)[0], name.rsplit(".", 1)[-1]) for name in names}
            for name in names:
                if not name.endswith(".manifest"):
                    continue
                stem = name[:-9]
                if (stem, "dropped") in marks:
                    continue
                path = os.path.join(root, vm, name)
                try:
                    manifest = Manifest(self, path)
                    manifest.removed = any((stem, kind) in marks for kind in ("removed", "expiring"))
                    yield manifest
                except Damage as damage:
                    print("rescue: passed over %s: %s" % (path, damage), file=sys.stderr)

    def find(self, backup_id):
        for manifest in self.manifests():
            if manifest.backup_id == backup_id:
                return manifest
        raise Damage("there is no backup %s; `list` shows which there are" % backup_id)

    # The tables of all packs: name -> places.
    def read_tables(self):
        self.places = {}
        packs = os.path.join(self.folder, "packs")
        for number in range(256):
            folder = os.path.join(packs, "%02x" % number)
            for name in sorted(os.listdir(folder)):
                if not name.endswith(".pack"):
                    continue
                path = os.path.join(folder, name)
                try:
                    self.read_table(path, bytes.fromhex(name[:-5]))
                except (Damage, ValueError) as damage:
                    self.passed_over.append(path)
                    print("rescue: passed over %s: %s" % (path, damage), file=sys.stderr)

    def read_table(self, path, pack_id):
        with open(path, "rb") as file:
            header = file.read(128)
            if header[:8] != b"BFPACK\r\n" or blake3(header[:112])[:16] != header[112:]:
                raise Damage("its header is wrong")
            if header[16:32] != self.id or header[32:48] != pack_id:
                raise Damage("it belongs elsewhere")
            size = file.seek(0, os.SEEK_END)
            file.seek(size - 64)
            footer = Fields(file.read(64))
            table_offset, count, version = footer.number(8), footer.number(4), footer.number(4)
            if version != 1 or footer.bytes(16) != pack_id or footer.data[56:] != b"BFPKEND\n":
                raise Damage("its end is not that of a sealed pack")
            if not 128 <= table_offset <= size - 64 - 48 * count:
                raise Damage("its table cannot be there")
            file.seek(table_offset)
            table = file.read(size - 64 - table_offset)
        # The digest of a table of thousands of lines takes a second in plain Python; every block
        # that is found through it is proven by its name.
        entries = Fields(table)
        for _ in range(count):
            name, offset = entries.bytes(32), entries.number(4)
            entries.number(4)
            stored_size, kind = entries.number(4), entries.number(1)
            entries.bytes(3)
            self.places.setdefault(name, []).append((path, offset, stored_size, kind))

    def record(self, place, name):
        """plain size, codec, stored bytes of the record at a place"""
        path, offset, stored_size, kind = place
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(80 + stored_size)
        fields = Fields(data)
        fields.bytes(16)
        is_kind = fields.number(1) == kind
        codec, flags = fields.number(1), fields.number(1)
        fields.bytes(1)
        plain_size, own_size = fields.number(4), fields.number(4)
        fields.bytes(4)
        if fields.bytes(32) != name or not is_kind or own_size != stored_size:
            raise Damage("another record is there")
        if flags > 1 or not 0 < plain_size <= BLOCK_SIZE:
            raise Damage("its header cannot be")
        seal, stored = fields.bytes(16), fields.bytes(stored_size)
        if flags == 1:
            if self.record_key is None:
                raise Damage("it is encrypted, the repository is not")
            clear_size = 34 if kind == PATCH else 0
            stored = stored[:clear_size] + self.open_record(
                seal, data[16:80 + clear_size], stored[clear_size:])
        return plain_size, codec, stored

    def read(self, name, kinds, proves=True):
        """The plain bytes behind a name, from whichever place has them."""
        damage = "no pack holds it"
        for place in self.places.get(name, ()):
            if place[3] not in kinds:
                continue
            try:
                plain = self.read_place(place, name)
                key = self.node_key if place[3] == MAP_NODE else self.chunk_key
                if not proves or blake3_keyed(key, plain) == name:
                    return plain
                damage = "its bytes do not have the digest that names them"
            except Damage as why:
                damage = str(why)
        raise Damage("%s cannot be read: %s" % (name.hex(), damage))

    def read_place(self, place, name):
        plain_size, codec, stored = self.record(place, name)
        if place[3] != PATCH:
            return decode(codec, stored, plain_size)
        base = self.read(stored[:32], (CHUNK,), proves=False)
        if len(base) != plain_size:
            raise Damage("its base has another size")
        pages = int.from_bytes(stored[32:34], "little")
        numbers = [i for i in range(16) if pages >> i & 1]
        if not numbers or numbers[-1] * PAGE_SIZE >= plain_size:
            raise Damage("its pages cannot be")
        sizes = [min(PAGE_SIZE, plain_size - i * PAGE_SIZE) for i in numbers]
        patch = decode(codec, stored[34:], sum(sizes))
        block = bytearray(base)
        at = 0
        for number, size in zip(numbers, sizes):
            block[number * PAGE_SIZE:number * PAGE_SIZE + size] = patch[at:at + size]
            at += size
        return bytes(block)

    def blocks(self, root, block_count):
        """(index, name) of every block that a map names, in order"""
        level = 0
        while FAN_OUT ** (level + 1) < block_count:
            level += 1
        yield from self.walk(root, level, 0, block_count)

    def walk(self, name, level, first, block_count):
        node = Fields(self.read(name, (MAP_NODE,)))
        present = node.number(8)
        for child in range(FAN_OUT):
            if not present >> child & 1:
                continue
            index = first + child * FAN_OUT ** level
            if index >= block_count:
                raise Damage("map node %s names blocks beyond the end of the disk" % name.hex())
            below = node.bytes(32)
            if level == 0:
                yield index, below
            else:
                yield from self.walk(below, level - 1, index, block_count)


class Manifest:
    def __init__(self, repository, path):
        with open(path, "rb") as file:
            data = file.read(64 << 20)
        data, digest = data[:-32], data[-32:]
        if blake3(data) != digest:
            raise Damage("its bytes have a wrong digest")
        if blake3_keyed(repository.manifest_key, data[:-32]) != data[-32:]:
            raise Damage("its code is wrong")
        fields = Fields(data)
        if fields.bytes(8) != b"BFMANIF\n" or fields.number(4) != 1:
            raise Damage("it is no manifest of version 1")
        flags = fields.number(4)
        if fields.bytes(16) != repository.id:
            raise Damage("it belongs to another repository")
        self.vm = fields.bytes(16).hex()
        self.sequence = fields.number(8)
        fields.bytes(24)
        self.backup_id = fields.text()
        self.base_id = fields.text()
        fields.text()
        disks = []
        for _ in range(fields.number(4)):
            disk_id, size = fields.text(), fields.number(8)
            has_root, root = fields.number(1), fields.bytes(32)
            disks.append((disk_id, size, root if has_root else None))
        if flags == 1:
            clear = data[:fields.at]
            sealed = fields.bytes(fields.number(4))
            secrets = Fields(repository.open_record(sealed[:16], clear, sealed[16:]))
            disks = [(secrets.text(), size, root) for _, size, root in disks]
        self.disks = disks


def list_backups(repository):
    print("%-34s %5s  %-40s %-24s %s" % ("VM", "SEQ", "BACKUP", "DISK", "BYTES"))
    for manifest in repository.manifests():
        for disk_id, size, _ in manifest.disks or [("(no disks)", 0, None)]:
            print("%-34s %5d  %-40s %-24s %d%s"
                  % (manifest.vm, manifest.sequence, manifest.backup_id, disk_id, size,
                     "  (removed)" if manifest.removed else ""))


def restore(repository, backup_id, wanted, out, proves):
    manifest = repository.find(backup_id)
    found = [disk for disk in manifest.disks if disk[0] == wanted]
    if not found:
        names = ", ".join(disk[0] for disk in manifest.disks) or "none"
        raise Damage("backup %s has no disk %s; it has: %s" % (backup_id, wanted, names))
    _, size, root = found[0]
    repository.read_tables()
    with open(out, "xb") as file:
        try:
            file.truncate(size)
            block_count = -(-size // BLOCK_SIZE)
            for index, name in repository.blocks(root, block_count) if root else ():
                block = repository.read(name, (CHUNK, PATCH), proves)
                if len(block) != min(BLOCK_SIZE, size - index * BLOCK_SIZE):
                    raise Damage("block %d has %d bytes" % (index, len(block)))
                file.seek(index * BLOCK_SIZE)
                file.write(block)
                if index % 256 == 0 and sys.stderr.isatty():
                    print("\r%3d %%" % (100 * index // block_count), end="", file=sys.stderr)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            # Half a disk must not look like one.
            os.unlink(out)
            raise
    print("restored %s of %s to %s, %d bytes%s"
          % (wanted, backup_id, out, size, "" if proves else ", digests not compared"))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|restore")
    one = verbs.add_parser("list", help="backups and their disks")
    one.add_argument("folder", metavar="FOLDER")
    one = verbs.add_parser("restore", help="rebuild one disk as a raw image")
    for name in ("folder", "backup", "disk", "out"):
        one.add_argument(name, metavar=name.upper())
    for verb in verbs.choices.values():
        verb.add_argument("--secret-file", metavar="FILE",
                          help="its first line is a passphrase or the recovery key")
    one.add_argument("--no-digest", action="store_true", help="do not compare blocks with their names")
    options = parser.parse_args()
    try:
        secret = read_secret(options.secret_file) if options.secret_file else None
        repository = Repository(options.folder, secret)
        if options.verb == "list":
            list_backups(repository)
        else:
            restore(repository, options.backup, options.disk, options.out, not options.no_digest)
    except (Damage, OSError) as failure:
        print("rescue: %s" % failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
