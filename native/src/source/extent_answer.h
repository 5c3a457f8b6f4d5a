// What an NBD server answers to a block status request, and the checks that make it
// fit to be trusted. The answer comes from another program: nothing in it is assumed.
#ifndef BLOCKFERRY_SOURCE_EXTENT_ANSWER_H_
#define BLOCKFERRY_SOURCE_EXTENT_ANSWER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "source/block_source.h"

namespace blockferry {

// Flat pairs of length and flags of one metadata context, as the protocol sends them.
struct ContextAnswer {
  bool answered = false;
  std::vector<uint32_t> entries;
};

// Appends to `extents` what both contexts say about the bytes from `offset_bytes` on, up
// to where the shorter answer ends. A null context is one that was not asked for: all
// bytes are then allocated, or changed. An empty answer is a failure, it does not mean
// "unchanged". Fails with the text of what is wrong.
Status MergeAnswers(uint64_t offset_bytes, uint64_t size_bytes, const ContextAnswer* allocation,
                    const ContextAnswer* bitmap, std::vector<Extent>* extents);

}  // namespace blockferry

#endif  // BLOCKFERRY_SOURCE_EXTENT_ANSWER_H_
