//go:build linux

package network

import (
	"os"
	"strings"
	"sync"
	"testing"
)

// TestHostThousandSlots: made by several at once, each is there, the host sees no more of them than of one, and all go.
func TestHostThousandSlots(t *testing.T) {
	const count, workers = 1000, 4
	r := newRig(t)
	n := r.open()
	r.make(n, 0)
	before := world(t, r.host)
	numbers := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for number := range numbers {
				if _, err := n.Make(t.Context(), number, user(number), user(number)); err != nil {
					t.Errorf("slot %d: %v", number, err)
				}
			}
		})
	}
	for number := range count {
		numbers <- number
	}
	close(numbers)
	wait.Wait()
	if slots, err := n.Slots(); err != nil || len(slots) != count {
		t.Errorf("%d slots, %v", len(slots), err)
	}
	if after := world(t, r.host); after != before {
		t.Errorf("the host sees\n%s\nof one slot it saw\n%s", after, before)
	}
	if lines := strings.Count(worldAt(t, r.options.hubPath()), "neighbour "); lines != count+1 {
		t.Errorf("the hub has %d neighbours", lines)
	}
	if err := Remove(t.Context(), r.options); err != nil {
		t.Error(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), r.options.Dir) {
		t.Errorf("mounts are left: %v", err)
	}
}
