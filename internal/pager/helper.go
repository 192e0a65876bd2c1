//go:build linux

package pager

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/record"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
	"github.com/tangle-network/microvm-runtime/internal/vmm"
)

const (
	kindName = "pager"
	version  = "1" // of what pager, driver and files say to each other
	leave    = 5 * time.Second

	closePatience = 3 * time.Second
	softLimit     = 64 << 20 // bytes of heap from which on the collector works harder
)

// Kind is the pager as a helper. Openers are of sources that are not this package's; optional.
func Kind(openers map[string]Opener) helper.Kind {
	serve := func(ctx context.Context, session *helper.Session) error { return serve(ctx, session, openers) }
	return helper.Kind{Name: kindName, Version: version, Serve: serve, Needed: needed, Idle: leave}
}

func serve(ctx context.Context, session *helper.Session, openers map[string]Opener) error {
	var config Config
	if err := json.Unmarshal(session.Config(), &config); err != nil {
		return err
	}
	debug.SetMemoryLimit(softLimit)
	config.Dir, config.Log, config.Openers = session.Dir(), session.Log(), openers
	p, err := Serve(config)
	if err != nil {
		return err
	}
	if err := session.Ready(); err != nil {
		return errors.Join(err, p.Close())
	}
	<-ctx.Done() // also when the VMM has ended: nothing needs it then
	return closeWithin(p, closePatience)
}

// closeWithin leaves what hangs to the end of the process: a read of a source, or of a descriptor that the VMM has made one that blocks.
func closeWithin(p *Pager, patience time.Duration) error {
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(patience):
		return errors.New("a read of the machine's memory does not end")
	}
}

// needed says whether the VMM lives.
func needed(session *helper.Session) bool {
	var config Config
	return json.Unmarshal(session.Config(), &config) == nil && vmm.Runs(config.VMM)
}

// Start sees to it that a pager serves the VMM: one that lives, or a new one, which takes over from one that has been killed. It must be there before
// the VMM is told to load the snapshot. With an error the VMM is as it was: one whose memory was served before stands still. Path and leaf are as of helper.Spec.
func Start(ctx context.Context, path string, leaf func() (*cgroup.Leaf, error), config Config) (*helper.Handle, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	return helper.Start(ctx, helper.Spec{Kind: kindName, Version: version, Dir: config.Dir, Config: text, Path: path, Cgroup: leaf})
}

// Lives says whether a pager lives.
func Lives(dir string) (bool, error) {
	h, err := helper.Find(dir, kindName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, h.Close()
}

// Stop ends the pager and who watches it, if they live, and removes their files, with the reason and the Stats. The VMM must have ended, or it stands still.
func Stop(ctx context.Context, dir string) error {
	if err := errors.Join(helper.Stop(ctx, dir, watchName), helper.Stop(ctx, dir, kindName)); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(dir, controlName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, clean(dir))
}

// Tree says what is ours in a pager's directory.
func Tree(dir string) tidy.Tree {
	ours := func(_ string, entry fs.DirEntry) bool {
		name := strings.TrimSuffix(entry.Name(), record.NewSuffix)
		if slices.Contains(own(""), name) || name == controlName {
			return true
		}
		kind, ending, _ := strings.Cut(name, ".")
		return (kind == kindName || kind == watchName) && slices.Contains([]string{"start", "lock", "json", "log"}, ending)
	}
	return tidy.Tree{Dir: dir, Ours: ours}
}
