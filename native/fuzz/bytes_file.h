// A file of bytes that are there already, for reading alone.
#ifndef BLOCKFERRY_FUZZ_BYTES_FILE_H_
#define BLOCKFERRY_FUZZ_BYTES_FILE_H_

#include <algorithm>
#include <cstring>

#include "core/file.h"

namespace blockferry::fuzz {

class BytesFile final : public File {
 public:
  explicit BytesFile(Bytes bytes) : bytes_(bytes) {}
  Result<size_t> ReadAt(uint64_t offset, MutableBytes out) override {
    if (offset >= bytes_.size()) return size_t{0};
    const size_t size = std::min<size_t>(out.size(), bytes_.size() - offset);
    std::memcpy(out.data(), bytes_.data() + offset, size);
    return size;
  }
  Status Append(Bytes) override { return Unused(); }
  Status Sync() override { return Unused(); }
  Result<uint64_t> Size() override { return uint64_t{bytes_.size()}; }

 private:
  static Status Unused() { return Status(reason::kNotFound, "not for reading"); }
  Bytes bytes_;
};

}  // namespace blockferry::fuzz

#endif  // BLOCKFERRY_FUZZ_BYTES_FILE_H_
