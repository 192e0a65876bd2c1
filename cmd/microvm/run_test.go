//go:build linux

package main

import (
	"slices"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestRunExecutesWhatTheImageSays, as far as the caller says nothing else.
func TestRunExecutesWhatTheImageSays(t *testing.T) {
	config := &microvm.ImageConfig{Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"serve"}, Env: []string{"A=image", "B=image"}, User: "1000", WorkingDir: "/srv"}
	for name, row := range map[string]struct {
		config          *microvm.ImageConfig
		f               runFlags
		args, want, env []string
		user, dir       string
	}{
		"the image's own":       {config, runFlags{}, nil, []string{"/entry", "-x", "serve"}, []string{"A=image", "B=image"}, "1000", "/srv"},
		"other arguments":       {config, runFlags{}, []string{"help"}, []string{"/entry", "-x", "help"}, []string{"A=image", "B=image"}, "1000", "/srv"},
		"another entry point":   {config, runFlags{entrypoint: "sh"}, []string{"-c", "id"}, []string{"sh", "-c", "id"}, []string{"A=image", "B=image"}, "1000", "/srv"},
		"all that flags can":    {config, runFlags{exec: execFlags{env: []string{"A=mine"}, user: "root", dir: "/"}}, nil, []string{"/entry", "-x", "serve"}, []string{"A=image", "B=image", "A=mine"}, "root", "/"},
		"no entry point":        {&microvm.ImageConfig{Cmd: []string{"bash"}}, runFlags{}, nil, []string{"bash"}, nil, "", ""},
		"an image from a path":  {nil, runFlags{}, []string{"true"}, []string{"true"}, nil, "", ""},
		"nothing, from nowhere": {nil, runFlags{}, nil, nil, nil, "", ""},
	} {
		got := row.f.command(row.config, row.args)
		if e := row.f.exec; !slices.Equal(got, row.want) || !slices.Equal(e.env, row.env) || e.user != row.user || e.dir != row.dir {
			t.Errorf("%s: %q with %+v, want %q", name, got, e, row.want)
		}
	}
}
