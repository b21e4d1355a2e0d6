// What llama.cpp offers only as C++, and calls that may throw, behind a C face that does not.

#include "llama.h"

#include <cstdint>
#include <cstring>
#include <map>

// From llama.cpp's src/llama-ext.h, which is not installed. Pinned together with llama-cpp-sys-2.
struct llama_memory_breakdown_data {
    size_t model   = 0;
    size_t context = 0;
    size_t compute = 0;

    size_t total() const { return model + context + compute; }
};
using llama_memory_breakdown = std::map<ggml_backend_buffer_type_t, llama_memory_breakdown_data>;
LLAMA_API llama_memory_breakdown llama_get_memory_breakdown(const struct llama_context * ctx);

extern "C" {

struct firepot_memory {
    char     name[64];
    uint64_t weights;
    uint64_t kv;
    uint64_t compute;
};

// Fills up to `capacity` entries and returns how many there are, or -1.
int32_t firepot_memory_breakdown(const llama_context * ctx, firepot_memory * out, int32_t capacity) {
    try {
        int32_t count = 0;
        for (const auto & [buft, data] : llama_get_memory_breakdown(ctx)) {
            if (count < capacity) {
                firepot_memory & entry = out[count];
                std::strncpy(entry.name, ggml_backend_buft_name(buft), sizeof(entry.name) - 1);
                entry.name[sizeof(entry.name) - 1] = '\0';
                entry.weights = data.model;
                entry.kv      = data.context;
                entry.compute = data.compute;
            }
            count++;
        }
        return count;
    } catch (...) {
        return -1;
    }
}

bool firepot_sampler_apply(llama_sampler * sampler, llama_token_data_array * candidates) {
    try {
        llama_sampler_apply(sampler, candidates);
        return true;
    } catch (...) {
        return false;
    }
}

llama_sampler * firepot_sampler_clone(const llama_sampler * sampler) {
    try {
        return llama_sampler_clone(sampler);
    } catch (...) {
        return nullptr;
    }
}

}
