//go:build linux

package pager

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// deferral is how long a page waits that the kernel does not take, as events come first.
const deferral = time.Millisecond

// fault is a page that somebody waits for.
type fault struct {
	page
	since time.Time // when it was read of
}

// work answers faults until the pager halts.
func (p *Pager) work() error {
	buffer := make([]byte, p.table.PageSize)
	var late []fault
	for {
		select {
		case <-p.halting:
			return nil
		default:
		}
		var message unix.UserfaultMessage
		err := p.next(&message)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			if late, err = p.again(late, buffer); err != nil {
				return err
			}
		case err != nil:
			return err
		case message.Event == unix.UserfaultPage:
			f := fault{since: time.Now()}
			if f.page, err = p.faultOf(message); err != nil {
				return err
			}
			if !p.removed.has(f.offset) {
				p.recording.add(f.offset / p.table.PageSize)
			}
			if late, err = p.resolve(f, buffer, late); err != nil {
				return err
			}
		}
	}
}

// again serves what was late, or waits for events.
func (p *Pager) again(late []fault, buffer []byte) (still []fault, err error) {
	for _, f := range late {
		if still, err = p.resolve(f, buffer, still); err != nil {
			return nil, err
		}
	}
	wait := -1
	switch {
	case len(still) > 0:
		wait = int(deferral / time.Millisecond)
	case len(late) > 0:
		return nil, nil
	}
	_, _, err = unix.PollEither(p.uffd, int(p.alarm.Fd()), wait)
	return still, err
}

// next reads one event. What was given up is noted while nobody can fill memory.
func (p *Pager) next(message *unix.UserfaultMessage) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	if err := unix.UserfaultRead(p.uffd, message); err != nil {
		return err
	}
	switch message.Event {
	case unix.UserfaultPage:
		return nil
	case unix.UserfaultRemove:
		return p.remove(message.Arg[0], message.Arg[1])
	case unix.UserfaultFork:
		syscall.Close(int(uint32(message.Arg[0])))
	}
	return fmt.Errorf("the VMM's memory has an event %#x that no VMM has cause for", message.Event)
}

// faultOf returns the page that is missing.
func (p *Pager) faultOf(message unix.UserfaultMessage) (page, error) {
	const write = 1 // UFFD_PAGEFAULT_FLAG_WRITE; the others are of kinds that nobody has asked for
	flags, address := message.Arg[0], message.Arg[1]
	at, ok := p.table.page(address)
	if !ok {
		return page{}, fmt.Errorf("a fault at address %#x, which is not in the VM's memory", address)
	}
	if flags&^write != 0 {
		return page{}, fmt.Errorf("a fault at address %#x of a kind %#x that no VMM has cause for", address, flags)
	}
	return at, nil
}

// remove notes that the guest has given a range up.
func (p *Pager) remove(begin, end uint64) error {
	size := p.table.PageSize
	for at := begin + (size-begin%size)%size; at+size <= end; at += size {
		gone, ok := p.table.page(at)
		if !ok {
			return fmt.Errorf("addresses %#x to %#x were given up, which are not in the VM's memory", begin, end)
		}
		if p.removed.add(gone.offset) {
			p.counters.removed.Add(1)
		}
	}
	return nil
}

// resolve serves a fault, or adds it to those that must wait.
func (p *Pager) resolve(f fault, buffer []byte, late []fault) ([]fault, error) {
	err := p.place(f.page, buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		p.counters.deferred.Add(1)
		return append(late, f), nil
	case errors.Is(err, syscall.ESRCH): // the VMM is ending
		return late, nil
	case err != nil:
		return late, err
	}
	p.counters.faults.Add(1)
	p.counters.latency.observe(time.Since(f.since))
	return late, nil
}

// place makes a page that is missing what it has to be.
func (p *Pager) place(at page, buffer []byte) error {
	if !p.removed.has(at.offset) {
		if n, err := p.source.ReadAt(buffer, int64(at.offset)); n < len(buffer) {
			return fmt.Errorf("read the VM's memory at offset %#x: %w", at.offset, err)
		}
	}
	p.changing.RLock()
	defer p.changing.RUnlock()
	if p.removed.has(at.offset) { // maybe since a moment
		return p.present(at, p.zero(at, buffer), &p.counters.zeroed)
	}
	_, err := unix.UserfaultCopy(p.uffd, at.address, buffer)
	return p.present(at, err, &p.counters.copied)
}

// zero makes a page zeros. It is for what the guest has given up, and for nothing else.
func (p *Pager) zero(at page, buffer []byte) error {
	if p.table.PageSize == hugePage {
		clear(buffer)
		_, err := unix.UserfaultCopy(p.uffd, at.address, buffer)
		return err
	}
	return unix.UserfaultZero(p.uffd, at.address, p.table.PageSize)
}

// present judges how a page was made: one that is there already is as good, and who waits for it is woken.
func (p *Pager) present(at page, err error, counter interface{ Add(uint64) uint64 }) error {
	switch {
	case err == nil:
		counter.Add(1)
		return nil
	case errors.Is(err, syscall.EEXIST):
		p.counters.present.Add(1)
		return unix.UserfaultWake(p.uffd, at.address, p.table.PageSize)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ESRCH):
		return err
	}
	return fmt.Errorf("fill the VM's memory at address %#x: %w", at.address, err)
}
