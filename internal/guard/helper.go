//go:build linux

package guard

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm-runtime/internal/cgroup"
	"github.com/tangle-network/microvm-runtime/internal/helper"
	"github.com/tangle-network/microvm-runtime/internal/resolver"
	"github.com/tangle-network/microvm-runtime/internal/tidy"
)

const (
	kindName = "guard"
	version  = "1" // of what guard, driver and entries say to each other
)

// Setting is what a guard's process is told.
type Setting struct {
	Hub     string       `json:"hub"` // As of Config.
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`

	Nameservers []netip.AddrPort `json:"nameservers,omitempty"` // Optional: those of /etc/resolv.conf.
}

// config is what a guard of this setting serves.
func (s Setting) config() Config {
	c := Config{Hub: s.Hub, Address: s.Address, Subnet: s.Subnet}
	if len(s.Nameservers) > 0 {
		c.Upstream = resolver.NewFixed(s.Nameservers...)
	}
	return c
}

// Kind is the guard as a helper.
func Kind() helper.Kind {
	return helper.Kind{Name: kindName, Version: version, Serve: serve, Needed: needed}
}

func serve(ctx context.Context, session *helper.Session) error {
	var setting Setting
	if err := json.Unmarshal(session.Config(), &setting); err != nil {
		return err
	}
	config := setting.config()
	config.Dir, config.Log = session.Dir(), session.Log()
	s, err := Serve(config)
	if err != nil {
		return err
	}
	if err := session.Ready(); err != nil {
		return errors.Join(err, s.Close())
	}
	<-ctx.Done()
	return s.Close()
}

func needed(session *helper.Session) bool {
	all, err := addresses(session.Dir())
	return err != nil || len(all) > 0
}

// Start sees to it that a guard lives. Path and leaf are as of helper.Spec.
func Start(ctx context.Context, dir, path string, leaf func() (*cgroup.Leaf, error), setting Setting) error {
	config, err := json.Marshal(setting)
	if err != nil {
		return err
	}
	h, err := helper.Start(ctx, helper.Spec{Kind: kindName, Version: version, Dir: dir, Config: config, Path: path, Cgroup: leaf})
	if err != nil {
		return err
	}
	return h.Close()
}

// Lives says whether a guard lives.
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

// Stop ends the guard, if one lives.
func Stop(ctx context.Context, dir string) error { return helper.Stop(ctx, dir, kindName) }

// Tree says what is ours in a guard's directory.
func Tree(dir string) tidy.Tree {
	own := []string{"guard.start", "guard.lock", "guard.json", "guard.json.new", "guard.log", "guard.sock"}
	file := func(_ string, entry fs.DirEntry) bool { return slices.Contains(own, entry.Name()) }
	entry := func(_ string, entry fs.DirEntry) bool { return entry.Type().IsRegular() }
	return tidy.Tree{Dir: dir, Ours: file, Below: []tidy.Tree{{Dir: "entry", Ours: entry}}}
}
