//go:build linux

package pager

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

func TestServeRefuses(t *testing.T) {
	self, err := vmm.Self()
	must(t, err)
	gone := self
	gone.StartTime++
	good := Config{Dir: t.TempDir(), VMM: self, Root: t.TempDir(), Socket: "pager", UID: os.Geteuid(), GID: os.Getegid(), Source: Location{Path: write(t, make([]byte, 8192))}}
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"relative directory": {func(c *Config) { c.Dir = "." }, microvm.ErrInvalid},
		"relative root":      {func(c *Config) { c.Root = "." }, microvm.ErrInvalid},
		"no socket":          {func(c *Config) { c.Socket = "" }, microvm.ErrInvalid},
		"socket elsewhere":   {func(c *Config) { c.Socket = "../pager" }, microvm.ErrInvalid},
		"no time":            {func(c *Config) { c.Record, c.RecordFor = "/a", -1 }, microvm.ErrInvalid},
		"no such VMM":        {func(c *Config) { c.VMM = gone }, vmm.ErrGone},
		"no source":          {func(c *Config) { c.Source.Path = "/nowhere" }, fs.ErrNotExist},
		"no root":            {func(c *Config) { c.Root = "/nowhere" }, fs.ErrNotExist},
	} {
		config := good
		c.change(&config)
		before := descriptors(t)
		if p, err := Serve(config); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, p, err, c.want)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors, before it were %d", name, after, before)
		}
	}
	p, err := Serve(good)
	must(t, err)
	left, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(left); !errors.Is(err, context.Canceled) || p.Stats().Phase != PhaseWaiting {
		t.Errorf("before the VMM has connected: %v, %+v", err, p.Stats())
	}
	must(t, p.Close())
}

// TestHostServe in this process: Wait says why.
func TestHostServe(t *testing.T) {
	g := newGuest(t, Location{Kind: "broken", Path: memoryFile(t, 64), Detail: detail(t, brokenAfter{Fail: 2})}, guestSpec{Size: 64 * 4096})
	g.config.Openers = openers()
	p, err := Serve(g.config)
	must(t, err)
	g.connect()
	for n := range 2 {
		g.tell("read", n*4096)
		g.expect(pageText(n))
	}
	must(t, p.Close()) // it lives, and waits for another
	if !vmm.Runs(g.config.VMM) {
		t.Fatal("it has ended with a pager that was closed")
	}
	p, err = Serve(g.config)
	must(t, err)
	defer p.Close()
	for n := range 2 {
		g.tell("read", (n+2)*4096)
		g.expect(pageText(n + 2))
	}
	g.tell("read", 4*4096)
	if err := p.Wait(bounded(t)); err == nil || !strings.Contains(err.Error(), "the disk has a hole") {
		t.Errorf("it was ended because %v", err)
	}
	if s := p.Stats(); s.Phase != PhaseEnded || s.Copied != 2 {
		t.Errorf("%+v", s)
	}
}

func TestHostWatchOfWhatHasEnded(t *testing.T) {
	g := newGuest(t, Location{}, guestSpec{Size: 4096})
	must(t, Watch(bounded(t), g.config.Dir, g.config.VMM)) // it has no pager at all
	if why, err := Reason(g.config.Dir, g.config.VMM); err != nil || !strings.Contains(why, "its pager has ended") {
		t.Errorf("it was ended because %q, %v", why, err)
	}
	must(t, Watch(bounded(t), g.config.Dir, g.config.VMM))
	other := g.config.VMM
	other.PID++
	if why, err := Reason(g.config.Dir, other); err != nil || why != "" {
		t.Errorf("another VMM was ended because %q, %v", why, err)
	}
}

func TestHostFilesOfAPager(t *testing.T) {
	g := newGuest(t, Location{Path: memoryFile(t, 64)}, guestSpec{Size: 64 * 4096})
	if lives, err := Lives(g.config.Dir); lives || err != nil {
		t.Errorf("one that was not started lives: %t, %v", lives, err)
	}
	if _, err := Look(bounded(t), g.config.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	helped(t, g.config)
	h, err := StartWatch(bounded(t), "", nil, g.config.Dir, g.config.VMM)
	must(t, err)
	defer h.Close()
	g.connect()
	g.tell("read", 0)
	g.expect(pageText(0))
	if lives, err := Lives(g.config.Dir); !lives || err != nil {
		t.Errorf("it lives: %t, %v", lives, err)
	}
	must(t, g.process.Kill())
	waitPhase(t, g.config, PhaseEnded)
	tree := Tree(g.config.Dir)
	entries, err := os.ReadDir(g.config.Dir)
	must(t, err)
	for _, entry := range entries {
		if !tree.Ours("", entry) {
			t.Errorf("%s is not ours", entry.Name())
		}
	}
	must(t, Stop(bounded(t), g.config.Dir))
	if left, err := os.ReadDir(g.config.Dir); err != nil || len(left) > 0 || len(entries) < 10 {
		t.Errorf("of %d files are left %v, %v", len(entries), left, err)
	}
}
