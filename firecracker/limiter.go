//go:build linux

package firecracker

import (
	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

// The least that a bucket which is filled ten times a second may hold. Below it a tenth of the rate would be less than one request takes, or be rounded by much.
const (
	leastBytes = 64 << 10
	leastOps   = 100
)

// limiter returns a limit as Firecracker's token buckets, nil when it limits nothing.
//
// A bucket that holds SIZE tokens and is filled in REFILL milliseconds lets through SIZE·1000/REFILL tokens a second, and SIZE at once after a rest. So REFILL is 100 ms and
// SIZE a tenth of the rate, unless that is less than 64 KiB or 100 operations: then REFILL is 1000 ms and SIZE the rate. A burst is there once beside SIZE.
func limiter(l *microvm.RateLimit) *api.RateLimiter {
	if l == nil || l.BytesPerSecond == 0 && l.OpsPerSecond == 0 {
		return nil
	}
	return &api.RateLimiter{Bandwidth: bucket(l.BytesPerSecond, l.BytesBurst, leastBytes), Ops: bucket(l.OpsPerSecond, l.OpsBurst, leastOps)}
}

func bucket(rate, burst, least int64) *api.TokenBucket {
	switch {
	case rate == 0:
		return nil
	case rate/10 >= least:
		return &api.TokenBucket{Size: rate / 10, OneTimeBurst: burst, RefillTime: 100}
	}
	return &api.TokenBucket{Size: rate, OneTimeBurst: burst, RefillTime: 1000}
}
