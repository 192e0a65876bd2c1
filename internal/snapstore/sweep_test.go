//go:build linux

package snapstore

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestSweepReadsNamesOnce, however many snapshots there are: each Snapshot waits for it.
func TestSweepReadsNamesOnce(t *testing.T) {
	s := newStore(t)
	times := map[int]int{}
	for n := range 6 {
		snapshot(t, s, fmt.Sprint("vm/", n), "", nil)
		times[n+1] = opened(t, filepath.Join(s.dir, "names"), func() {
			if removed, err := s.Sweep(); err != nil || len(removed) > 0 {
				t.Errorf("removed %q, %v", removed, err)
			}
		})
	}
	if times[1] == 0 || times[6] != times[1] {
		t.Errorf("names are read so often, by how many snapshots there are: %v", times)
	}
	left, _ := draft(t, s, "", nil)
	left.lock.Close() // as if its maker had been killed
	if removed, err := s.Sweep(); err != nil || !slices.Equal(removed, []string{left.uid}) {
		t.Errorf("removed %q, %v; want %s", removed, err, left.uid)
	}
	if names := listed(t, s); len(names) != 6 {
		t.Errorf("%q", names)
	}
}

// opened counts how often a directory is opened meanwhile.
func opened(t *testing.T, dir string, do func()) (count int) {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	// Two events that are alike in a row are one: so both are asked for.
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_OPEN|syscall.IN_CLOSE_NOWRITE|syscall.IN_ONLYDIR); err != nil {
		t.Fatal(err)
	}
	do()
	buffer := make([]byte, 64<<10)
	n, err := syscall.Read(fd, buffer)
	if err != nil && err != syscall.EAGAIN {
		t.Fatal(err)
	}
	for event := buffer[:max(n, 0)]; len(event) > 0; {
		mask, length := binary.NativeEndian.Uint32(event[4:]), binary.NativeEndian.Uint32(event[12:])
		if mask&syscall.IN_OPEN != 0 && length == 0 { // of itself, not of what is in it
			count++
		}
		event = event[syscall.SizeofInotifyEvent+length:]
	}
	return count
}
