// Package quota bounds how often something may happen.
//
// There is only one type, [Bucket]: a rate, and a burst that may be had at once after a while of nothing.
package quota

import (
	"sync"
	"time"
)

// Bucket holds tokens: one is taken for each thing that happens, and they come back with time. Several goroutines may use it.
type Bucket struct {
	mu     sync.Mutex
	rate   float64 // tokens a second
	burst  float64
	tokens float64
	last   time.Time
}

// New returns a full bucket of burst tokens, of which rate come back each second.
func New(rate, burst int) *Bucket {
	return &Bucket{rate: float64(rate), burst: float64(burst), tokens: float64(burst)}
}

// Take takes a token, and says whether there was one.
func (b *Bucket) Take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() && now.After(b.last) {
		b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
