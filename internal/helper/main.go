//go:build linux

package helper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/flock"
	"github.com/tangle-network/microvm-runtime/internal/unix"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

// marker is the variable that makes a process a helper. Its value is an order.
const marker = "MICROVM_HELPER"

// protocol is the version of what a starter and its helper say to each other.
const protocol = 1

// order is what a helper is to do.
type order struct {
	Protocol int    `json:"protocol"`
	Kind     string `json:"kind"`
	Version  string `json:"version"`
	Dir      string `json:"dir"`
	Config   []byte `json:"config,omitempty"`
	// Timeout is for a helper whose starter is gone: nobody else would end one that never serves.
	Timeout time.Duration `json:"timeout"`
}

// answer is the one line that a helper says to its starter.
type answer struct {
	Protocol int    `json:"protocol"`
	Error    string `json:"error,omitempty"`
	Cause    string `json:"cause,omitempty"` // one of causeBusy and causeVersion
}

const (
	causeBusy    = "busy"
	causeVersion = "version"
)

// Kind is something that helpers can serve.
type Kind struct {
	Name    string // Of a-z, 0-9 and -.
	Version string // Must be that of the Spec.
	// Serve calls Session.Ready when it serves, and returns when ctx ends, or when it can't go on.
	Serve func(ctx context.Context, s *Session) error
	// Needed says whether anything needs the helper. One that nothing needs ends. Optional: it is needed for ever.
	Needed func(s *Session) bool
	// Idle is how often Needed is asked. Optional: a minute.
	Idle time.Duration
}

// mainWasCalled is whether this program can be its own helper: nothing but its main knows.
var mainWasCalled atomic.Bool

// Main serves and exits where this process was started as a helper, and returns at once where it was not. It must be called before the program does anything else. A
// program that has more rights than who started it, by its set-user-ID or set-group-ID bit or file capabilities, serves nobody: its environment says nothing.
func Main(kinds ...Kind) {
	text, ok := os.LookupEnv(marker)
	if !ok {
		mainWasCalled.Store(true)
		return
	}
	os.Unsetenv(marker)  // not for children
	if unix.Elevated() { // anybody who may execute it could have anything served with its rights
		(&Session{}).answer(answer{Error: errElevated.Error()})
		fmt.Fprintf(os.Stderr, "%s is set: %v\n", marker, errElevated)
		os.Exit(1)
	}
	os.Exit(run(text, kinds))
}

// run is a helper's life. It returns what to exit with.
func run(text string, kinds []Kind) int {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP) // a starter that is gone is no reason to go
	s := &Session{log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := s.serve(text, kinds); err != nil {
		s.log.Error("the helper ends", "error", err)
		s.answer(answerOf(err))
		return 1
	}
	s.log.Info("the helper ends")
	return 0
}

// Session is a helper, seen from within.
type Session struct {
	order order
	kind  Kind
	log   *slog.Logger
	told  atomic.Bool // whether the starter has its answer
}

// Dir returns the directory that is served.
func (s *Session) Dir() string { return s.order.Dir }

// Config returns the Spec's.
func (s *Session) Config() []byte { return s.order.Config }

// Log returns what writes to the helper's log.
func (s *Session) Log() *slog.Logger { return s.log }

// Ready tells the starter that the helper serves, and writes down who it is.
func (s *Session) Ready() error {
	self, err := vmm.Self()
	if err != nil {
		return err
	}
	if err := writeRecord(s.place(), record{Identity: self, Version: s.kind.Version, Config: s.order.Config}); err != nil {
		return err
	}
	s.log.Info("the helper serves", "kind", s.kind.Name, "dir", s.order.Dir)
	s.answer(answer{})
	return nil
}

func (s *Session) place() place { return place{s.order.Dir, s.kind.Name} }

// answer tells the starter once. That may be gone.
func (s *Session) answer(a answer) {
	if s.told.Swap(true) {
		return
	}
	a.Protocol = protocol
	json.NewEncoder(os.Stdout).Encode(a)
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil { // what is printed from here on goes nowhere, and the starter sees the end
		syscall.Dup3(int(null.Fd()), int(os.Stdout.Fd()), 0)
		null.Close()
	}
}

var (
	errBusy    = errors.New("another helper lives")
	errVersion = errors.New("the program is of another version")

	errElevated = errors.New("a set-user-ID, set-group-ID or setcap program is no helper (take those bits from it, or name a program without them by Options.HelperPath)")
)

func answerOf(err error) answer {
	a := answer{Error: err.Error()}
	switch {
	case errors.Is(err, errBusy):
		a.Cause = causeBusy
	case errors.Is(err, errVersion):
		a.Cause = causeVersion
	}
	return a
}

func (s *Session) serve(text string, kinds []Kind) error {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s.order); err != nil {
		return fmt.Errorf("%w: %s: %w", errVersion, marker, err)
	}
	n := slices.IndexFunc(kinds, func(kind Kind) bool { return kind.Name == s.order.Kind })
	if n < 0 || s.order.Protocol != protocol {
		return fmt.Errorf("%w: it has no helper of kind %q and protocol %d", errVersion, s.order.Kind, s.order.Protocol)
	}
	if s.kind = kinds[n]; s.kind.Version != s.order.Version {
		return fmt.Errorf("%w: its helper %q is version %q, version %q is asked for", errVersion, s.kind.Name, s.kind.Version, s.order.Version)
	}
	now, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	lock, err := flock.Lock(now, s.place().lock())
	cancel()
	if err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	defer lock.Close()
	late := time.AfterFunc(s.order.Timeout, func() {
		if !s.told.Load() {
			s.log.Error("the helper ends: it does not serve in time", "timeout", s.order.Timeout)
			os.Exit(1)
		}
	})
	defer late.Stop()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return s.untilUnneeded(ctx)
}

// untilUnneeded serves. When it returns because nothing needs the helper, nobody can have adopted it: the lock of starters is held until the process ends.
func (s *Session) untilUnneeded(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var starting io.Closer
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if starting = s.unneeded(ctx); starting != nil {
			s.log.Info("nothing needs the helper")
			cancel()
		}
	}()
	err := s.kind.Serve(ctx, s)
	asked := ctx.Err() != nil
	cancel()
	<-watched
	if starting == nil { // whoever comes next sees a process that has ended
		return ended(err, asked)
	}
	os.Remove(s.place().record())
	return ended(err, true)
}

// ended tells an end that was asked for from one that was not.
func ended(err error, asked bool) error {
	switch {
	case asked && (err == nil || errors.Is(err, context.Canceled)):
		return nil
	case err == nil:
		return errors.New("it has stopped serving by itself")
	}
	return err
}

// unneeded returns the lock of starters once nothing needs the helper, and nil when ctx ends.
func (s *Session) unneeded(ctx context.Context) io.Closer {
	if s.kind.Needed == nil {
		<-ctx.Done()
		return nil
	}
	idle := s.kind.Idle
	if idle == 0 {
		idle = time.Minute
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(idle):
		}
		if s.kind.Needed(s) {
			continue
		}
		lock, err := flock.Lock(ctx, s.place().starting())
		if err != nil {
			return nil
		}
		if !s.kind.Needed(s) {
			return lock
		}
		lock.Close()
	}
}

// place is where a helper's files are.
type place struct{ dir, kind string }

func (p place) starting() string { return filepath.Join(p.dir, p.kind+".start") }
func (p place) lock() string     { return filepath.Join(p.dir, p.kind+".lock") }
func (p place) record() string   { return filepath.Join(p.dir, p.kind+".json") }
func (p place) log() string      { return filepath.Join(p.dir, p.kind+".log") }
