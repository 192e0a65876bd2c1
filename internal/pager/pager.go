//go:build linux

package pager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/jail"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// Config says whose memory is served, and from where. Required are Dir, VMM, Root, Socket and Source.
type Config struct {
	Dir    string       `json:"-"`   // Where the pager's files are: root's, on a tmpfs, this machine's alone.
	VMM    vmm.Identity `json:"vmm"` // It runs, and has not loaded the snapshot yet.
	UID    int          `json:"uid"` // The VMM's user, who may connect.
	GID    int          `json:"gid"`
	Root   string       `json:"root"`   // Directory of the socket: the jail's root, or where a bare VMM runs.
	Socket string       `json:"socket"` // Its name there, which the VMM is told as backend_path. What stands in its place is removed.
	Source Location     `json:"source"`

	WorkingSet string `json:"working_set,omitempty"` // Path of a recorded order of pages: these are copied before they are asked for. Optional.
	// Record is the path where the order of faults is written to, when that is asked for, its time is over, or the VMM ends; where WorkingSet was prefetched, only if more was asked for beside it than
	// it has, and then both. Optional.
	Record    string        `json:"record,omitempty"`
	RecordFor time.Duration `json:"record_for,omitempty"` // Since the VMM has connected. Optional: without an end.

	Openers map[string]Opener `json:"-"` // Optional: only this package's sources.
	Log     *slog.Logger      `json:"-"` // Optional: silent.

	after func(time.Duration) <-chan time.Time // time.After; tests put something else in its place
}

func (c Config) check() error {
	if !filepath.IsAbs(c.Dir) || !filepath.IsAbs(c.Root) || c.Socket == "" || c.Socket != filepath.Base(c.Socket) {
		return fmt.Errorf("%w: the pager's directories must be absolute, and its socket a name", microvm.ErrInvalid)
	}
	if c.RecordFor < 0 {
		return fmt.Errorf("%w: a recording of %s", microvm.ErrInvalid, c.RecordFor)
	}
	return nil
}

// Pager serves the memory of one VMM.
type Pager struct {
	config   Config
	log      *slog.Logger
	vmm      *vmm.Process
	source   Source
	control  net.Listener
	listener net.Listener // nil once another pager has taken the VMM's connection
	alarm    *os.File     // readable once halting is closed
	ring     *os.File     // closing it is what makes it so
	serving  sync.WaitGroup
	halting  chan struct{}
	halt     func()
	ended    chan struct{} // closed when the VMM has ended, and all is written down
	once     sync.Once     // the first failure is the reason

	counters  counters
	recording recording
	finishing sync.Mutex // held by who writes the recording down
	// changing is held by who reads events, and shared by who fills memory: a page that was given up is known to be so before anybody can fill it again.
	changing sync.RWMutex

	mu       sync.Mutex
	phase    string
	failure  error
	tookOver bool
	// Known from the phase of serving on, and the same ever after.
	table   table
	uffd    int
	removed *removed
}

// Serve listens for the VMM, or goes on where a pager before has ended, and returns at once. vmm.ErrGone says that there is no such VMM.
func Serve(config Config) (_ *Pager, err error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.after == nil {
		config.after = time.After
	}
	p := &Pager{config: config, log: config.Log, uffd: -1, phase: PhaseWaiting, halting: make(chan struct{}), ended: make(chan struct{})}
	p.recording.on = config.Record != ""
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.alarm, p.ring, err = os.Pipe(); err != nil {
		return nil, err
	}
	p.halt = sync.OnceFunc(func() { close(p.halting); p.ring.Close() })
	if p.vmm, err = vmm.Open(config.VMM); err != nil {
		return nil, fmt.Errorf("the VMM: %w", err)
	}
	if p.source, err = config.Source.Open(config.Openers); err != nil {
		return nil, err
	}
	if p.control, err = listen(config.Dir, controlName, os.Geteuid(), os.Getegid()); err != nil {
		return nil, err
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	p.serving.Go(func() { helper.Answer(p.control, &p.serving, p.answer) })
	p.serving.Go(p.attend)
	return p, nil
}

// begin takes over from a pager before, or listens.
func (p *Pager) begin() error {
	why, err := Reason(p.config.Dir, p.config.VMM)
	if err != nil {
		return err
	}
	if why != "" { // the pager before has not come to do it
		p.fail(errors.New(why))
		return nil
	}
	before, err := readRegions(p.config.Dir)
	if err != nil {
		return err
	}
	if before != nil && before.VMM == p.config.VMM {
		return p.takeOver(before.Table)
	}
	if err := clean(p.config.Dir); err != nil { // of another VMM
		return err
	}
	held, err := faultDescriptors(p.config.VMM.PID)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		p.fail(errors.New("the pager before has ended before it wrote down where the memory is"))
		return nil
	}
	if p.listener, err = listen(p.config.Root, p.config.Socket, p.config.UID, p.config.GID); err != nil {
		return err
	}
	p.serving.Go(func() {
		if err := p.await(p.listener); err != nil {
			p.fail(err)
		}
	})
	return nil
}

// listen makes a socket in place of what stands there.
func listen(dir, name string, uid, gid int) (net.Listener, error) {
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil { // beneath, whatever a VMM has put there
		return nil, err
	}
	return jail.Listen(dir, name, uid, gid)
}

// adopt begins to serve a VMM that has said where its memory is. It takes the descriptor over.
func (p *Pager) adopt(t table, uffd int) error {
	bits, err := openRemoved(p.config.Dir, t.end(), t.PageSize, true)
	if err == nil {
		err = writeRegions(p.config.Dir, regions{VMM: p.config.VMM, Table: t})
	}
	if err != nil {
		return errors.Join(err, syscall.Close(uffd))
	}
	if p.config.WorkingSet != "" {
		p.recording.learn()
	}
	p.serve(t, uffd, bits, false)
	if p.config.WorkingSet != "" {
		p.serving.Go(p.prefetch)
	}
	if p.config.Record != "" && p.config.RecordFor > 0 {
		p.serving.Go(p.endRecording)
	}
	return nil
}

// slowWorkers is how many pages of a slow source are read at the same time.
const slowWorkers = 8

// serve begins to answer faults.
func (p *Pager) serve(t table, uffd int, bits *removed, tookOver bool) {
	p.mu.Lock()
	p.table, p.uffd, p.removed, p.tookOver, p.phase = t, uffd, bits, tookOver, PhaseServing
	p.mu.Unlock()
	p.log.Info("the VMM's memory is served", "regions", t.Regions, "page size", t.PageSize, "took over", tookOver)
	workers := 1
	if p.source.Slow() {
		workers = slowWorkers
	}
	for range workers {
		p.serving.Go(func() {
			if err := p.work(); err != nil {
				p.fail(err)
			}
		})
	}
}

// fail ends the VM. The first failure is written down before that.
func (p *Pager) fail(err error) {
	p.once.Do(func() {
		if !vmm.Runs(p.config.VMM) { // its end is not ours, and what it says meanwhile no failure
			return
		}
		p.log.Error("the VM ends", "reason", err)
		p.mu.Lock()
		p.failure = err
		p.mu.Unlock()
		if err := errors.Join(writeReason(p.config.Dir, p.config.VMM, err.Error()), p.vmm.Kill()); err != nil {
			p.log.Error("end of the VM", "error", err)
		}
	})
}

// attend waits for the VMM's end.
func (p *Pager) attend() {
	select {
	case <-p.halting:
		return
	case <-p.vmm.Done():
	}
	p.mu.Lock()
	p.phase = PhaseEnded
	p.mu.Unlock()
	if err := errors.Join(p.finishRecording(), writeStats(p.config.Dir, p.Stats())); err != nil {
		p.log.Warn("what is left of the VM", "error", err)
	}
	p.halt()
	close(p.ended)
}

// Wait waits until the VMM has ended, and returns why the pager has ended it, or nil where it did not.
func (p *Pager) Wait(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Stats returns what was done so far.
func (p *Pager) Stats() Stats {
	p.mu.Lock()
	s := Stats{Phase: p.phase, TookOver: p.tookOver, PageSize: p.table.PageSize}
	for _, r := range p.table.Regions {
		s.Pages += r.Size / p.table.PageSize
	}
	p.mu.Unlock()
	p.counters.fill(&s)
	return s
}

// Close stops serving. A VMM that lives stands still at the next page that is missing, until another pager takes over. It waits for reads of the source that have begun.
func (p *Pager) Close() error {
	var err error
	for _, listener := range []net.Listener{p.control, p.listener} {
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	if p.halt != nil {
		p.halt()
	}
	p.serving.Wait()
	if p.uffd >= 0 {
		err = errors.Join(err, syscall.Close(p.uffd), p.removed.close())
	}
	if p.source != nil {
		err = errors.Join(err, p.source.Close())
	}
	if p.vmm != nil {
		err = errors.Join(err, p.vmm.Close())
	}
	if p.alarm != nil {
		err = errors.Join(err, p.alarm.Close())
	}
	return err
}
