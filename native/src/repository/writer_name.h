// How the files of one writer are named, be it a session or a collector: a token in fixed-width
// hex, so that names sort as tokens do, and a random number, so that no two writers share a name.
#ifndef BLOCKFERRY_REPOSITORY_WRITER_NAME_H_
#define BLOCKFERRY_REPOSITORY_WRITER_NAME_H_

#include <string>
#include <string_view>

#include "repository/manifest.h"

namespace blockferry {

inline constexpr size_t kTokenTextSize = 33;
inline constexpr size_t kWriterNameSize = kTokenTextSize + 1 + 16;

// Fixed-width hex, most significant digit first.
std::string Hex16(uint64_t value);
bool ParseHex16(std::string_view text, uint64_t* value);

std::string TokenText(const FencingToken& token);

// A new one with that token.
std::string MakeWriterName(const FencingToken& token);

// The writer's name at the start of the name of one of its files, empty for other files.
std::string_view WriterOf(std::string_view file_name);

}  // namespace blockferry

#endif  // BLOCKFERRY_REPOSITORY_WRITER_NAME_H_
