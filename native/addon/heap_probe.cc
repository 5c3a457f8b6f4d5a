// For leak.test.ts only: how many bytes of the C library's heap are given out. What the system says
// a process holds has slack that hides megabytes.
#include <malloc.h>
#include <napi.h>

namespace {

Napi::Value HeapBytes(const Napi::CallbackInfo& info) {
  const struct mallinfo2 heap = mallinfo2();
  return Napi::Number::New(info.Env(), static_cast<double>(heap.uordblks + heap.hblkhd));
}

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("heapBytes", Napi::Function::New(env, HeapBytes, "heapBytes"));
  return exports;
}

}  // namespace

NODE_API_MODULE(heap_probe, Initialize)
