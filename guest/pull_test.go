//go:build linux

package guest_test

import (
	"io"
	"iter"
	"testing"
	"time"
)

// pull reads an iteration one by one, each within a bound: io.EOF at its end. stop ends it.
func pull[T any](t *testing.T, seq iter.Seq2[T, error]) (next func() (T, error), stop func()) {
	type pair struct {
		value T
		err   error
	}
	values, done := make(chan pair), make(chan struct{})
	go func() {
		defer close(values)
		for value, err := range seq {
			select {
			case values <- pair{value, err}:
			case <-done:
				return
			}
		}
	}()
	return func() (T, error) {
			select {
			case p, ok := <-values:
				if !ok {
					return p.value, io.EOF
				}
				return p.value, p.err
			case <-time.After(20 * time.Second):
				t.Fatal("nothing comes")
				panic("unreachable")
			}
		}, func() {
			close(done)
		}
}
