//go:build linux

package main

import (
	"math/rand/v2"
	"time"
)

// discarded is how many of each side come before those that count: caches fill.
const discarded = 5

// interleave times n of ours and n of theirs by turns, of each one at each nth part of a tick, in random order: see settle. Those that do not count have negative numbers.
func interleave(n int, one, plain func(i int, phase float64) (time.Duration, error)) (ours, theirs []time.Duration, err error) {
	phases := rand.Perm(n)
	for i := -discarded; i < n; i++ {
		phase := float64(phases[(i+n)%n]) / float64(n)
		our, err := one(i, phase)
		if err != nil {
			return nil, nil, err
		}
		their, err := plain(i, phase)
		if err != nil {
			return nil, nil, err
		}
		if i >= 0 {
			ours, theirs = append(ours, our), append(theirs, their)
		}
	}
	return ours, theirs, nil
}
