#include "stream/frame.h"

#include "repository/pack_format.h"

namespace blockferry {

using pack_format::kRecordHeaderSize;

Frame MakeFrame(uint64_t block_index, const Digest& name, Bytes plain, Encoder* encoder,
                MutableBytes buffer) {
  const EncodedBlock block = encoder->Encode(plain, buffer.subspan(kRecordHeaderSize));
  const MutableBytes whole = buffer.first(kRecordHeaderSize + block.bytes.size());
  Frame frame;
  frame.block_index = block_index;
  frame.record = {RecordType::kChunk, block.codec, name, static_cast<uint32_t>(plain.size()),
                  block.bytes,        whole};
  EncodeRecord(frame.record, whole);
  return frame;
}

size_t FrameSizeMax(size_t plain_size) { return kRecordHeaderSize + plain_size; }

}  // namespace blockferry
