// Philox4x32-10 (Salmon et al., SC 2011), the same words as gpucnn.random.philox.

struct Words {
    unsigned word[4];
};

__device__ inline Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        const unsigned left = unsigned(p1 >> 32) ^ c1 ^ k0, right = unsigned(p0 >> 32) ^ c3 ^ k1;
        c0 = left;
        c1 = unsigned(p1);
        c2 = right;
        c3 = unsigned(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}
