#include "stream/pipeline.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "stream/run_ring.h"

namespace blockferry {
namespace {

constexpr unsigned kWorkerCountMax = 4;
// 16 reads under way, some runs with each worker, and the rest for the time that the writer waits
// for its storage: 17 MiB in all.
constexpr size_t kSlotCount = 2 * kReadCountMax;
static_assert(kSlotCount > kReadCountMax);

// Reads the runs of the plan ahead, so that the source always has requests to work on.
class Reader {
 public:
  Reader(const Line& line, RunRing* ring) : line_(line), ring_(ring) {}

  Status Run() {
    for (;;) {
      ASSIGN_OR_RETURN(const std::optional<BlockRun> run, line_.plan->Next(kReadBlockCountMax));
      if (!run.has_value()) break;
      ASSIGN_OR_RETURN(RunSlot* const slot, ClaimSlot());
      if (slot == nullptr) return Status();
      slot->run = *run;
      RETURN_IF_ERROR(Begin(slot));
    }
    while (!claimed_.empty()) RETURN_IF_ERROR(PublishOldest());
    ring_->Close();
    return Status();
  }

 private:
  // The reader waits for the writer only when it has nothing to hand out.
  Result<RunSlot*> ClaimSlot() {
    RETURN_IF_ERROR(line_.cancel->Check());
    for (;;) {
      if (RunSlot* slot = ring_->Claim(claimed_.empty())) return slot;
      // After a failure nobody wants what is still being read.
      if (claimed_.empty() || ring_->failed()) return nullptr;
      RETURN_IF_ERROR(PublishOldest());
    }
  }

  Status Begin(RunSlot* slot) {
    claimed_.push_back(slot);
    if (slot->run.kind == BlockRun::Kind::kData) {
      slot->bytes = slot->PlainBuffer().first(line_.SizeOf(slot->run));
      RETURN_IF_ERROR(line_.source->Submit(line_.OffsetOf(slot->run.first_block), slot->bytes));
      ++read_count_;
    }
    // What has no bytes waits for nothing.
    while (!claimed_.empty() && (read_count_ == kReadCountMax || !IsReading(*claimed_.front()))) {
      RETURN_IF_ERROR(PublishOldest());
    }
    return Status();
  }

  Status PublishOldest() {
    if (IsReading(*claimed_.front())) {
      RETURN_IF_ERROR(line_.source->Await());
      --read_count_;
    }
    claimed_.erase(claimed_.begin());
    ring_->Publish();
    return Status();
  }

  static bool IsReading(const RunSlot& slot) { return slot.run.kind == BlockRun::Kind::kData; }

  const Line& line_;
  RunRing* ring_;
  // Claimed and not yet published, in order; a slot at most for each of the ring.
  std::vector<RunSlot*> claimed_;
  size_t read_count_ = 0;
};

// Diff and compress for one run of data.
void PrepareRun(const Line& line, FrameMaker* maker, RunSlot* slot) {
  std::array<Digest, kReadBlockCountMax> names;
  std::array<bool, kReadBlockCountMax> lacks;
  std::array<uint64_t, kReadBlockCountMax> positions;
  size_t count = 0;
  const uint64_t block_count = slot->run.end_block - slot->run.first_block;
  for (uint64_t position = 0; position < block_count; ++position) {
    const Bytes plain = BlockIn(slot->bytes, position);
    BlockFate& fate = slot->fates[position];
    fate.kind = IsZero(plain) ? BlockFate::Kind::kZero : BlockFate::Kind::kNamed;
    if (fate.kind == BlockFate::Kind::kZero) continue;
    names[count] = fate.frame.record.name = line.naming->ChunkName(plain);
    positions[count++] = position;
  }
  line.channel->FindLacking(std::span(names).first(count), std::span(lacks).first(count));
  for (size_t i = 0; i < count; ++i) {
    if (!lacks[i]) continue;
    const uint64_t position = positions[i];
    slot->fates[position] = {
        BlockFate::Kind::kFrame,
        maker->Make(slot->run.first_block + position, names[i], BlockIn(slot->bytes, position),
                    slot->FrameBuffer(position))};
  }
}

void Work(const Line& line, RunRing* ring) {
  FrameMaker maker(line.compression, line.writer_key, line.channel);
  while (RunSlot* slot = ring->TakeRead()) {
    PrepareRun(line, &maker, slot);
    ring->Finish(slot);
  }
}

// Stream and target, in the order of the disk.
class Writer {
 public:
  explicit Writer(const Line& line)
      : line_(line), maker_(line.compression, line.writer_key, line.channel) {}

  Status Write(RunSlot* slot) {
    switch (slot->run.kind) {
      case BlockRun::Kind::kHole:
        return Status();
      case BlockRun::Kind::kKept:
        return line_.channel->Keep(slot->run.first_block, slot->run.end_block);
      case BlockRun::Kind::kData:
        return WriteData(slot);
    }
    return Status();
  }

 private:
  Status WriteData(RunSlot* slot) {
    for (uint64_t index = slot->run.first_block; index < slot->run.end_block; ++index) {
      const uint64_t position = index - slot->run.first_block;
      const Bytes plain = BlockIn(slot->bytes, position);
      RETURN_IF_ERROR(WriteBlock(slot, index, position, plain));
      // Only now: a checkpoint that is taken within the block begins with it again.
      line_.channel->CountRead(plain.size());
    }
    return Status();
  }

  Status WriteBlock(RunSlot* slot, uint64_t index, uint64_t position, Bytes plain) {
    const BlockFate& fate = slot->fates[position];
    if (fate.kind == BlockFate::Kind::kZero) return Status();
    const Digest name = fate.frame.record.name;
    ASSIGN_OR_RETURN(const bool wanted, line_.channel->Offer(index, name));
    if (!wanted) return Status();
    const MutableBytes buffer = slot->FrameBuffer(position);
    // Otherwise the chunk was there when the worker asked, and is not any more.
    const bool is_made = fate.kind == BlockFate::Kind::kFrame;
    return SendFrame(line_, is_made ? fate.frame : maker_.Make(index, name, plain, buffer), plain,
                     &maker_, buffer);
  }

  const Line& line_;
  FrameMaker maker_;
};

Status WriteAll(const Line& line, RunRing* ring) {
  Writer writer(line);
  while (RunSlot* slot = ring->TakeNext()) {
    RETURN_IF_ERROR(line.cancel->Check());
    RETURN_IF_ERROR(writer.Write(slot));
    line.progress->position_bytes.Set(line.EndOf(slot->run));
    ring->Release();
  }
  return ring->failure();
}

unsigned WorkerCount(const PipelineOptions& options) {
  if (options.worker_count != 0) return options.worker_count;
  return std::clamp(std::thread::hardware_concurrency(), 1u, kWorkerCountMax);
}

}  // namespace

Result<std::optional<Digest>> MoveDiskInParallel(const Line& line, const PipelineOptions& options) {
  RunRing ring(kSlotCount);
  std::vector<std::thread> threads;
  threads.emplace_back([&line, &ring] {
    if (const Status read = Reader(line, &ring).Run(); !read.ok()) ring.Fail(read);
  });
  for (unsigned i = 0; i < WorkerCount(options); ++i) {
    threads.emplace_back([&line, &ring] { Work(line, &ring); });
  }
  const Status written = WriteAll(line, &ring);
  if (!written.ok()) ring.Fail(written);
  for (std::thread& thread : threads) thread.join();
  RETURN_IF_ERROR(written);
  return line.channel->Seal();
}

}  // namespace blockferry
