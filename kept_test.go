package microvm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// TestKeptIsCheckedOnTheHost: what an agent would refuse is refused before it is asked, for then a machine is lost by it; what it takes is not. No error has a value.
func TestKeptIsCheckedOnTheHost(t *testing.T) {
	const value = "whisper"
	many := func(n, size int, text string) map[string]string {
		all := map[string]string{}
		for i := range n {
			all[fmt.Sprint("n", i)] = strings.Repeat(text, size)
		}
		return all
	}
	type kept struct{ env, secrets map[string]string }
	for what, k := range map[string]kept{
		"no name":               {env: map[string]string{"": value}},
		"a digit first":         {env: map[string]string{"1A": value}},
		"=":                     {env: map[string]string{"A=B": value}},
		"a NUL byte":            {env: map[string]string{"A": value + "\x00"}},
		"no UTF-8":              {env: map[string]string{"A": value + "\xff"}},
		"a large variable":      {env: many(1, wire.MaxVariable, "v")},
		"many variables":        {env: many(5, wire.MaxVariable-8, "v")},
		"much as JSON":          {env: many(4, wire.MaxVariable-8, "<")},
		"a path":                {secrets: map[string]string{"../etc": value}},
		"no name of a secret":   {secrets: map[string]string{"": value}},
		"a large secret":        {secrets: many(1, wire.MaxSecret+1, "v")},
		"many secrets":          {secrets: many(wire.MaxSecrets+1, 1, "v")},
		"much as base64":        {secrets: many(16, wire.MaxSecret, "v")},
		"each is, both are not": {env: many(3, wire.MaxVariable-8, "v"), secrets: many(10, wire.MaxSecret, "v")},
	} {
		for _, options := range []interface{ Validate() error }{&microvm.RestoreOptions{Env: k.env, Secrets: k.secrets}, &microvm.ClaimOptions{Env: k.env, Secrets: k.secrets}} {
			if err := options.Validate(); !errors.Is(err, microvm.ErrInvalid) || strings.Contains(fmt.Sprint(err), value) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	for what, k := range map[string]kept{
		"nothing":                       {},
		"to be deleted":                 {env: map[string]string{"_A1": ""}},
		"any bytes":                     {secrets: map[string]string{"a-B_0": "\x00\xff"}},
		"all variables":                 {env: many(4, wire.MaxVariable-8, "v")},
		"what JSON has another way for": {env: many(2, 8<<10, "<\n\u2028\x7f")},
		"many secrets":                  {secrets: many(wire.MaxSecrets, 8<<10, "v")},
		"large secrets":                 {secrets: many(11, wire.MaxSecret, "v")},
	} {
		for _, options := range []interface{ Validate() error }{&microvm.RestoreOptions{Env: k.env, Secrets: k.secrets}, &microvm.ClaimOptions{Env: k.env, Secrets: k.secrets}} {
			if err := options.Validate(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		request := wire.Renew{Token: strings.Repeat("t", 64), Generation: strings.Repeat("g", 64), Hostname: strings.Repeat("h", 64), Entropy: make([]byte, wire.MaxEntropy), Env: k.env, Secrets: map[string][]byte{}}
		for name, value := range k.secrets {
			request.Secrets[name] = []byte(value)
		}
		if text, err := json.Marshal(request); err != nil || len(text) > wire.MaxBody {
			t.Errorf("%s: %d bytes, %v: the agent takes %d", what, len(text), err, wire.MaxBody)
		}
	}
}
