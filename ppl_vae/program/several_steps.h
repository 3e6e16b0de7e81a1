// Several steps by one call of a library that torch's compiler makes (the C interface of AOTInductor).
//
// A step of a small network takes as long as Python needs to choose its rows and to hand some fifty tensors over. The library of
// a step is given, behind what one step takes, all rows and which of them stand in each batch; it puts a batch after the other
// where the step reads it. The step itself is the same code, so the numbers are those of as many calls, to the last bit.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace ppl_vae {

inline void checked(AOTITorchError error) {
  if (error != AOTI_TORCH_SUCCESS) throw std::runtime_error("a tensor of several steps cannot be read");
}

struct Handed {  // a tensor that was handed over, deleted in the end
  AtenTensorHandle handle;
  explicit Handed(AtenTensorHandle given) : handle(given) {}
  Handed(Handed&& other) noexcept : handle(other.handle) { other.handle = nullptr; }
  Handed(const Handed&) = delete;
  ~Handed() {
    if (handle) aoti_torch_delete_tensor_object(handle);
  }
  int64_t numel() const {
    int64_t found = 0;
    checked(aoti_torch_get_numel(handle, &found));
    return found;
  }
  int64_t size(int64_t dim) const {
    int64_t found = 0;
    checked(aoti_torch_get_size(handle, dim, &found));
    return found;
  }
  char* data() const {
    void* found = nullptr;
    checked(aoti_torch_get_data_ptr(handle, &found));
    return static_cast<char*>(found);
  }
  int64_t bytes() const {
    int32_t dtype = 0;
    checked(aoti_torch_get_dtype(handle, &dtype));
    return numel() * static_cast<int64_t>(aoti_torch_dtype_element_size(dtype));
  }
};

// Take the steps that the last of some inputs, rows (K, B), asks for; false, and nothing done, where it is empty.
//
// The inputs: `state` tensors that a step changes, `fields` of a batch (B, ...), its rates (R), the `fields` of all rows
// (N, ...), the rates of all steps (K, R), rows (K, B) of int64, constants. All but the state are dense. `step` takes handles
// of all of them, which it deletes, and gives `found` others; it may ask again, from within, and is then told false.
template <typename Step>
bool several(
    AtenTensorHandle* inputs, size_t all, AtenTensorHandle* outputs, size_t found, size_t state, size_t fields, Step step) {
  const size_t rate = state + fields, rows_at = rate + fields + 2;
  int64_t asked = 0;
  checked(aoti_torch_get_numel(inputs[rows_at], &asked));
  thread_local bool within = false;
  if (asked == 0 || within) return false;
  struct Within {
    Within() { within = true; }
    ~Within() { within = false; }
  } now;
  std::vector<Handed> given;
  given.reserve(all);
  for (size_t place = 0; place < all; place++) {
    given.emplace_back(inputs[place]);
    inputs[place] = nullptr;  // as the caller is told of what is deleted here
  }
  const Handed &rows = given[rows_at], &rates = given[rows_at - 1];
  const int64_t count = rows.size(0), batch = rows.size(1), bytes_of_rates = given[rate].bytes();
  const int64_t* chosen = reinterpret_cast<const int64_t*>(rows.data());
  std::vector<AtenTensorHandle> handles(all);
  for (int64_t turn = 0; turn < count; turn++, chosen += batch) {
    for (size_t field = 0; field < fields; field++) {
      const Handed &into = given[state + field], &from = given[rate + 1 + field];
      const int64_t number = from.size(0), size = into.bytes() / batch;
      char* to = into.data();
      const char* lines = from.data();
      for (int64_t row = 0; row < batch; row++, to += size) {
        if (chosen[row] < 0 || chosen[row] >= number) throw std::out_of_range("a row that is not there");
        std::memcpy(to, lines + chosen[row] * size, size);
      }
    }
    std::memcpy(given[rate].data(), rates.data() + turn * bytes_of_rates, bytes_of_rates);
    for (size_t place = 0; place < all; place++) checked(aoti_torch_new_tensor_handle(given[place].handle, &handles[place]));
    step(handles.data(), outputs);
    if (turn + 1 < count)
      for (size_t place = 0; place < found; place++) checked(aoti_torch_delete_tensor_object(outputs[place]));
  }
  return true;
}

}  // namespace ppl_vae
