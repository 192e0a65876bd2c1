//go:build linux

// Package lab runs programs as root on a host that can run real microVMs, also on a machine that can't: a QEMU system emulator with nested AMD virtualisation, in which
// unmodified Firecracker boots an unmodified Linux.
//
// There are only three types: [Options], the [Job]s in them, and [Event], which is what comes back.
//
// # Caveats
//
// It is emulated: about 20 times slower than the machine. What takes time in it says nothing about time elsewhere.
//
// Programs must be static. They see the parts of package setup read-only at [Cache], and their temporary directory is an ext4 disk.
package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/setup"
)

const (
	// Cache is where the parts are in the lab: $MICROVM_CACHE.
	Cache = "/parts"
	// Payload is where the jobs' programs and files are.
	Payload = "/payload"
	// Scratch is the temporary directory: $TMPDIR.
	Scratch = "/scratch"
	// Port is the name of the virtio port over which events come, and the numbers of jobs go.
	Port = "lab.events"
	// Beat is how often the lab says that it lives.
	Beat = time.Second
	// NoJob is what a lab is told that has nothing left to run.
	NoJob = -1

	defaultTimeout = 10 * time.Minute // of a job

	memoryMiB  = 4096
	layerMiB   = 2048
	scratchMiB = 16384
)

// Job is one program that runs in the lab.
type Job struct {
	Name    string        `json:"name"`
	Program string        `json:"program"` // Path on this machine.
	Args    []string      `json:"args"`
	Env     []string      `json:"env"`     // Over PATH, HOME, TMPDIR and MICROVM_CACHE.
	Timeout time.Duration `json:"timeout"` // Optional: ten minutes. Then what hangs is told, and killed.
}

// Options say what runs.
type Options struct {
	Parts setup.Parts
	Jobs  []Job             // They begin in this order.
	Files map[string]string // More files, by path below Payload. Optional.
	Event func(Event)       // Called for everything that comes, one by one, what one lab says in order. Optional.
	Log   string            // Path for the console of the lab's kernel; of lab 2 with ".2" behind. Optional.
}

// Event is something that a job said, or its end.
type Event struct {
	Lab  int    `json:"-"` // Which of the labs that run at a time: 1, 2.
	Job  int    `json:"job"`
	Data []byte `json:"data,omitempty"` // Output: standard output and standard error in one.
	Exit *int   `json:"exit,omitempty"` // The job's status; -1 when it was killed.
	Boot string `json:"boot,omitempty"` // The lab runs, after so many seconds of its own clock.
	Beat bool   `json:"beat,omitempty"` // The lab lives: it says so each Beat. Not for Options.Event.
	Lost string `json:"lost,omitempty"` // The emulator has lost a guest: what shows it. Not for Options.Event.
	Halt string `json:"-"`              // Why the lab was given up, in one line. What Job has said, unless it is NoJob, counts for nothing: it runs once more.
}

// Run boots labs, one for each CPU up to two, as far as there is memory for them. Each runs the job that comes next until none is left, and powers itself off. A lab whose
// host stands still, or whose emulator has lost a guest, is killed, and a fresh one goes on with the job that was under way: a job in three at the most. A lab that can't go on
// leaves what remains to the other.
func Run(ctx context.Context, o Options) error {
	o.Jobs = slices.Clone(o.Jobs)
	for i := range o.Jobs {
		o.Jobs[i].Timeout = cmp.Or(o.Jobs[i].Timeout, defaultTimeout)
	}
	o.Event = oneByOne(o.Event)
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(dir)
	cpus, err := places(len(o.Jobs))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	m, err := makeMedia(ctx, o, dir)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return together(len(cpus), len(o.Jobs), func(number int, s *share) error {
		l := lab{Options: o, media: m, patience: usualPatience(), share: s, number: number, cpu: cpus[number-1]}
		l.Event = func(e Event) {
			e.Lab = number
			o.Event(e)
		}
		return again(ctx, l.Event, s, func(ctx context.Context) error { return l.once(ctx, dir) })
	})
}

// oneByOne lets several labs call a function.
func oneByOne(event func(Event)) func(Event) {
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if event != nil {
			event(e)
		}
	}
}

// together runs labs beside each other, each with its share of the jobs.
func together(labs, jobs int, run func(number int, s *share) error) error {
	q, errs := newQueue(jobs), make([]error, labs)
	var all sync.WaitGroup
	for i := range labs {
		all.Go(func() {
			if err := run(i+1, &share{queue: q, job: NoJob}); err != nil {
				errs[i] = fmt.Errorf("lab %d: %w", i+1, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// lab is one QEMU, and then the next in its place.
type lab struct {
	Options
	media
	patience
	*share
	number, cpu int
	dir         string // Of one QEMU.
}

// once runs one QEMU.
func (l lab) once(ctx context.Context, dir string) (err error) {
	if l.dir, err = os.MkdirTemp(dir, "lab-"); err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if err := errors.Join(disk.EmptyExt4(ctx, l.path("layer.ext4"), layerMiB), disk.EmptyExt4(ctx, l.path("scratch.ext4"), scratchMiB)); err != nil {
		return err
	}
	return l.run(ctx)
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }
