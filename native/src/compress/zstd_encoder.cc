#include "compress/zstd_encoder.h"

#include <zstd.h>

#include <cassert>

#include "compress/stored_encoder.h"

namespace blockferry {

// About 1 MiB at level 3 and 10 MiB at level 19 for blocks of 64 KiB.
struct ZstdEncoder::Context {
  ZSTD_CCtx* zstd = ZSTD_createCCtx();
  ~Context() { ZSTD_freeCCtx(zstd); }
};

ZstdEncoder::ZstdEncoder(int level) : context_(std::make_unique<Context>()), level_(level) {
  assert(level >= kZstdLevelMin && level <= kZstdLevelMax);
  assert(context_->zstd != nullptr);
}

ZstdEncoder::~ZstdEncoder() = default;

EncodedBlock ZstdEncoder::Encode(Bytes plain, MutableBytes out) {
  const size_t worth_bytes = plain.size() - plain.size() / 32;
  // It gives up as soon as the block does not fit.
  const size_t size = ZSTD_compressCCtx(context_->zstd, out.data(), worth_bytes, plain.data(),
                                        plain.size(), level_);
  if (ZSTD_isError(size) || plain.size() < 32) return Store(plain, out);
  return {Codec::kZstd, out.first(size)};
}

Status DecodeZstd(Bytes encoded, MutableBytes plain) {
  // A context is 150 KiB, and making one takes as long as decoding a block.
  thread_local const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                                  &ZSTD_freeDCtx);
  const size_t size = ZSTD_decompressDCtx(context.get(), plain.data(), plain.size(), encoded.data(),
                                          encoded.size());
  if (!ZSTD_isError(size) && size == plain.size()) return Status();
  return Status(reason::kBlockCorrupt, "decode a zstd block of " + std::to_string(encoded.size()) +
                                           " bytes: it does not give the " +
                                           std::to_string(plain.size()) + " bytes it promises");
}

}  // namespace blockferry
