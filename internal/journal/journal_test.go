//go:build linux

package journal

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestFollowTellsEverythingAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := Append(t.Context(), path, microvm.Event{UID: "before"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := Follow(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 800
	padding := strings.Repeat("x", 1000) // more than two rotations in all
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := Append(t.Context(), path, microvm.Event{UID: fmt.Sprint(w), Name: fmt.Sprint(i), Labels: map[string]string{"p": padding}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	next := map[string]int{}
	seen := 0
	for event, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(next[event.UID]); event.Name != want {
			t.Fatalf("writer %s: event %s, want %s", event.UID, event.Name, want)
		}
		next[event.UID]++
		if seen++; seen == writers*each {
			break
		}
	}
	writing.Wait()
	if next["before"] != 0 {
		t.Error("told what was before the call")
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := Follow(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Append(t.Context(), path, microvm.Event{UID: "one"}); err != nil {
		t.Fatal(err)
	}
	told := 0
	for event, err := range events {
		if err != nil || event.UID != "one" {
			t.Fatal(event, err)
		}
		told++
		cancel()
	}
	if told != 1 {
		t.Errorf("told %d events, want 1", told)
	}
}
