#include "stream/frame_maker.h"

#include "diff/page_run.h"
#include "repository/pack_format.h"
#include "repository/patch.h"

namespace blockferry {
namespace {

using pack_format::kRecordHeaderSize;

PageSet DifferentPages(Bytes one, Bytes other) {
  PageSet pages;
  for (PageRun run = NextDifferentRun(one, other, 0); run.size > 0;
       run = NextDifferentRun(one, other, run.end())) {
    for (size_t at = run.offset; at < run.end(); at += kPageSize) pages.set(at / kPageSize);
  }
  return pages;
}

}  // namespace

size_t FrameSizeMax(size_t plain_size) { return kRecordHeaderSize + plain_size + kAeadTagSize; }

FrameMaker::FrameMaker(const Compression& compression, WriterKey* writer_key, Channel* channel)
    : encoder_(NewEncoder(compression)),
      channel_(channel),
      base_(kBlockSize),
      pages_(static_cast<size_t>(kBlockSize * kPatchShareMax)) {
  if (writer_key != nullptr) sealer_.emplace(writer_key);
}

Frame FrameMaker::FrameOf(uint64_t block_index, NewRecord record, MutableBytes buffer) {
  record.is_encrypted = sealer_.has_value();
  const MutableBytes whole = buffer.first(RecordSize(record));
  record.encoded = whole;
  EncodeRecord(record, whole, sealer_ ? &*sealer_ : nullptr);
  return {block_index, record};
}

Frame FrameMaker::Make(uint64_t block_index, const Digest& name, Bytes plain, MutableBytes buffer) {
  const std::optional<Frame> patch = MakePatch(block_index, name, plain, buffer);
  return patch ? *patch : MakeWhole(block_index, name, plain, buffer);
}

Frame FrameMaker::MakeWhole(uint64_t block_index, const Digest& name, Bytes plain,
                            MutableBytes buffer) {
  const EncodedBlock block =
      encoder_->Encode(plain, buffer.subspan(kRecordHeaderSize, plain.size()));
  return FrameOf(
      block_index,
      {RecordType::kChunk, block.codec, name, static_cast<uint32_t>(plain.size()), block.bytes},
      buffer);
}

std::optional<Frame> FrameMaker::MakePatch(uint64_t block_index, const Digest& name, Bytes plain,
                                           MutableBytes buffer) {
  const MutableBytes base_plain = MutableBytes(base_).first(plain.size());
  const std::optional<BaseChunk> base = channel_->ReadBase(block_index, base_plain);
  if (!base) return std::nullopt;
  const PatchHead head{base->name, DifferentPages(plain, base_plain)};
  const size_t pages_size = SizeOfPages(head.pages, plain.size());
  // Equal blocks: the base is what is damaged or lost elsewhere. It is stored anew.
  const auto pages_size_max = static_cast<size_t>(plain.size() * kPatchShareMax);
  if (pages_size == 0 || pages_size > pages_size_max) return std::nullopt;
  const MutableBytes pages = MutableBytes(pages_).first(pages_size);
  GatherPages(head.pages, plain, pages);
  const MutableBytes stored = buffer.subspan(kRecordHeaderSize);
  const EncodedBlock encoded = encoder_->Encode(pages, stored.subspan(kPatchHeadSize, pages_size));
  const size_t stored_size = kPatchHeadSize + encoded.bytes.size();
  if (static_cast<double>(stored_size) > base->stored_size * kPatchShareMax) return std::nullopt;
  // What was stored as it is lies in the pages still.
  if (encoded.bytes.data() != stored.data() + kPatchHeadSize) {
    std::copy(encoded.bytes.begin(), encoded.bytes.end(), stored.begin() + kPatchHeadSize);
  }
  EncodePatchHead(head, stored.first(kPatchHeadSize));
  return FrameOf(block_index,
                 {RecordType::kPatch,
                  encoded.codec,
                  name,
                  static_cast<uint32_t>(plain.size()),
                  stored.first(stored_size),
                  {},
                  head.base},
                 buffer);
}

}  // namespace blockferry
