//go:build linux

package pager

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Stats say what a pager has done. A new pager on the same VM begins anew.
type Stats struct {
	Phase    string `json:"phase"`     // One of the phases.
	PageSize uint64 `json:"page_size"` // Bytes. 0 before the VMM has connected.
	Pages    uint64 `json:"pages"`     // Of the memory.
	TookOver bool   `json:"took_over"` // Another pager served the VM before.

	Faults     uint64        `json:"faults"`     // Pages that were asked for, and are there.
	Copied     uint64        `json:"copied"`     // Pages that were copied because of that.
	Zeroed     uint64        `json:"zeroed"`     // Pages that the guest had given up, and asked for again.
	Removed    uint64        `json:"removed"`    // Pages that the guest has given up.
	Prefetched uint64        `json:"prefetched"` // Pages that were copied before they were asked for.
	Present    uint64        `json:"present"`    // Pages that were there already.
	Deferred   uint64        `json:"deferred"`   // How often the kernel wanted events to be read first.
	Prefetch   time.Duration `json:"prefetch"`   // How long prefetching took. 0 until it is done.
	Latency    Histogram     `json:"latency"`    // Of faults: from when the event was read until the page was there.
}

// The phases of a pager.
const (
	PhaseWaiting = "waiting" // For the VMM.
	PhaseServing = "serving"
	PhaseEnded   = "ended"
)

// counters are the Stats as they are counted.
type counters struct {
	faults, copied, zeroed, removed, prefetched, present, deferred atomic.Uint64
	prefetch                                                       atomic.Int64
	latency                                                        histogram
}

func (c *counters) fill(s *Stats) {
	s.Faults, s.Copied, s.Zeroed, s.Removed = c.faults.Load(), c.copied.Load(), c.zeroed.Load(), c.removed.Load()
	s.Prefetched, s.Present, s.Deferred = c.prefetched.Load(), c.present.Load(), c.deferred.Load()
	s.Prefetch, s.Latency = time.Duration(c.prefetch.Load()), c.latency.load()
}

// Each power of two nanoseconds has steps buckets of the same width, so that no bucket is wider than an eighth of what is in it.
const (
	stepBits = 3
	steps    = 1 << stepBits
	buckets  = 40 * steps
)

// histogram counts durations.
type histogram [buckets]atomic.Uint64

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < steps {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - stepBits
	return min((shift+1)<<stepBits+int(n>>shift)-steps, buckets-1)
}

// upper returns the end of a bucket.
func upper(bucket int) time.Duration {
	if bucket < steps {
		return time.Duration(bucket + 1)
	}
	shift := bucket>>stepBits - 1
	return time.Duration(bucket&(steps-1)+steps+1) << shift
}

func (h *histogram) observe(d time.Duration) { h[bucketOf(d)].Add(1) }

func (h *histogram) load() Histogram {
	all := Histogram{}
	for n := range h {
		if count := h[n].Load(); count > 0 {
			all[int64(upper(n))] = count
		}
	}
	return all
}

// Histogram counts durations: how many were below so many nanoseconds, and not below the next smaller key. Keys are at most an eighth above what they count.
type Histogram map[int64]uint64

// Count returns how many durations there are.
func (h Histogram) Count() (count uint64) {
	for _, n := range h {
		count += n
	}
	return count
}

// Quantile returns the duration that a share of all, from 0 to 1, is below. 0 when there are none.
func (h Histogram) Quantile(share float64) time.Duration {
	keys := make([]int64, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	rest := max(1, uint64(share*float64(h.Count())+0.5))
	for _, key := range keys {
		if h[key] >= rest {
			return time.Duration(key)
		}
		rest -= h[key]
	}
	return 0
}
