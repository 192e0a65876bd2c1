//go:build linux

package pager

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// takeOver goes on where another pager has ended: with the descriptor that the VMM still has.
func (p *Pager) takeOver(t table) error {
	if err := t.check(p.source.Size()); err != nil {
		return fmt.Errorf("%s: %w", recordPath(p.config.Dir), err)
	}
	uffd, err := p.take()
	if err != nil { // nobody else could go on either
		p.fail(fmt.Errorf("take over from the pager before: %w", err))
		return nil
	}
	bits, err := openRemoved(p.config.Dir, t.end(), t.PageSize, false)
	if err != nil {
		return errors.Join(err, syscall.Close(uffd))
	}
	for _, r := range t.Regions { // who waits for an answer that the pager before has taken along asks again
		if err := unix.UserfaultWake(uffd, r.Base, r.Size); err != nil {
			return errors.Join(err, bits.close(), syscall.Close(uffd))
		}
	}
	p.recording.stop() // what the pager before has recorded is lost: the rest is no working set
	p.serve(t, uffd, bits, true)
	return nil
}

// take gets a copy of the descriptor out of the VMM. Firecracker has one.
func (p *Pager) take() (int, error) {
	held, err := faultDescriptors(p.config.VMM.PID)
	if err != nil {
		return -1, err
	}
	if len(held) != 1 {
		return -1, fmt.Errorf("the VMM has %d descriptors of a userfaultfd, and not one", len(held))
	}
	fd, err := p.vmm.Take(held[0])
	if err != nil {
		return -1, err
	}
	if err := checkUserfault([]int{fd}); err != nil { // it may have been exchanged meanwhile
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

// faultDescriptors returns the numbers of a process's userfaultfds.
func faultDescriptors(pid int) (held []int, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil || link != unix.UserfaultLink { // one that was closed meanwhile is none
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, err
		}
		held = append(held, fd)
	}
	return held, nil
}
