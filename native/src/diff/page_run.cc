#include "diff/page_run.h"

#include <algorithm>
#include <cassert>

namespace blockferry {
namespace {

// `counts` says whether the page from its first to its second argument belongs to a run.
template <typename Counts>
PageRun NextRun(size_t size, size_t from, Counts counts) {
  PageRun run{from, 0};
  while (run.end() < size) {
    const size_t end = std::min(run.end() + kPageSize, size);
    if (counts(run.end(), end)) {
      run.size = end - run.offset;
    } else if (run.size > 0) {
      break;
    } else {
      run.offset = end;
    }
  }
  return run;
}

}  // namespace

PageRun NextDifferentRun(Bytes one, Bytes other, size_t from) {
  assert(one.size() == other.size());
  return NextRun(one.size(), from, [&](size_t begin, size_t end) {
    return !Equal(one.subspan(begin, end - begin), other.subspan(begin, end - begin));
  });
}

PageRun NextNonZeroRun(Bytes bytes, size_t from) {
  return NextRun(bytes.size(), from, [&](size_t begin, size_t end) {
    return !IsZero(bytes.subspan(begin, end - begin));
  });
}

}  // namespace blockferry
