//go:build linux

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/netns"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// inode tells a namespace from another at the same path.
func inode(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", info.Sys())
}

func TestHostMakeIsIdempotent(t *testing.T) {
	r := newRig(t)
	n := r.open()
	if _, err := n.Slot(7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a slot that was not made: %v", err)
	}
	s := r.make(n, 7)
	first := inode(t, s.Namespace)
	r.make(n, 7)
	if inode(t, s.Namespace) != first {
		t.Error("it was made anew")
	}
	if s, err := n.Make(t.Context(), 7, 5, 6); err != nil || s.UID != 5 || s.GID != 6 || inode(t, s.Namespace) == first {
		t.Errorf("for another user: %+v, %v", s, err)
	}
	r.make(n, 3)
	if numbers, err := n.Slots(); err != nil || !slices.Equal(numbers, []int{3, 7}) {
		t.Errorf("slots %v, %v", numbers, err)
	}
	if err := errors.Join(n.Remove(t.Context(), 7), n.Remove(t.Context(), 7)); err != nil {
		t.Error(err)
	}
	if numbers, err := n.Slots(); err != nil || !slices.Equal(numbers, []int{3}) {
		t.Errorf("slots %v, %v", numbers, err)
	}
}

// TestHostConcurrentMakes: of many that make some slots at once, each gets the one that it asked for.
func TestHostConcurrentMakes(t *testing.T) {
	r := newRig(t)
	networks := []*Network{r.open(), r.open()}
	var wait sync.WaitGroup
	for i := range 24 {
		wait.Go(func() {
			if s, err := networks[i%2].Make(t.Context(), i%8, user(i%8), user(i%8)); err != nil || s.Number != i%8 {
				t.Errorf("%d: %+v, %v", i, s, err)
			}
		})
	}
	wait.Wait()
	if numbers, err := networks[0].Slots(); err != nil || len(numbers) != 8 {
		t.Errorf("slots %v, %v", numbers, err)
	}
}

// inSlot runs f in a slot.
func inSlot(t *testing.T, s *Slot, f func(h *netlink.Handle) error) {
	t.Helper()
	if err := at(s.Namespace, func(_ *netns.Namespace, h *netlink.Handle) error { return f(h) }); err != nil {
		t.Fatal(err)
	}
}

// TestHostSlotThatIsUsed: one whose TAP a VMM has open is neither recycled nor removed.
func TestHostSlotThatIsUsed(t *testing.T) {
	r := newRig(t)
	n := r.open()
	s := r.make(n, 7)
	var tap *os.File
	inSlot(t, s, func(*netlink.Handle) (err error) {
		tap, err = unix.OpenTAP(TAP)
		return err
	})
	for what, do := range map[string]func() error{
		"recycle": func() error { return n.Recycle(t.Context(), 7) },
		"remove":  func() error { return n.Remove(t.Context(), 7) },
		"purge":   func() error { return Remove(t.Context(), r.options) },
	} {
		if err := do(); !errors.Is(err, microvm.ErrBusy) {
			t.Errorf("%s: %v", what, err)
		}
	}
	before := inode(t, s.Namespace)
	tap.Close()
	if err := n.Recycle(t.Context(), 7); err != nil || inode(t, s.Namespace) != before {
		t.Errorf("afterwards: %v", err)
	}
}
