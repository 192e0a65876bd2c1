package microvm

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tangle-network/microvm-runtime/internal/wire"
)

const (
	variableRule = "names must be of A-Z, a-z, 0-9 and _, and not begin with a digit; values must be UTF-8 without NUL bytes"
	secretRule   = "names must be 1 to 64 of a-z, A-Z, 0-9, _ and -"
	// keptRoom is how many bytes the guest's agent takes of both at once, as they are sent: what else it is told has the rest.
	keptRoom = wire.MaxBody - 16<<10
	perKept  = len(`"":"",`)
)

// checkKept says whether a guest's agent can keep variables and secrets, as far as that is known before it is asked. No error has a value.
func checkKept(of string, env, secrets map[string]string) *FieldError {
	variables, sent := 0, 0
	for name, value := range env {
		if !wire.ValidVariable(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return &FieldError{Field: of + ".Env", Value: name, Reason: variableRule}
		}
		if len(name)+len(value) > wire.MaxVariable {
			return &FieldError{Field: of + ".Env", Value: name, Reason: fmt.Sprintf("must be at most %d bytes, with its value", wire.MaxVariable)}
		}
		variables += len(name) + len(value)
		sent += perKept + len(name) + sentBytes(value)
	}
	if variables > wire.MaxEnv {
		return &FieldError{Field: of + ".Env", Value: fmt.Sprint(variables, " bytes"), Reason: fmt.Sprintf("must be at most %d bytes", wire.MaxEnv)}
	}
	if len(secrets) > wire.MaxSecrets {
		return &FieldError{Field: of + ".Secrets", Value: len(secrets), Reason: fmt.Sprintf("must be at most %d", wire.MaxSecrets)}
	}
	for name, value := range secrets {
		if !wire.ValidSecret(name) {
			return &FieldError{Field: of + ".Secrets", Value: name, Reason: secretRule}
		}
		if len(value) > wire.MaxSecret {
			return &FieldError{Field: of + ".Secrets", Value: name, Reason: fmt.Sprintf("must be at most %d bytes", wire.MaxSecret)}
		}
		sent += perKept + len(name) + (len(value)+2)/3*4 // base64
	}
	if sent > keptRoom {
		return &FieldError{Field: of + ".Env", Value: fmt.Sprint(sent, " bytes"), Reason: fmt.Sprintf("must be at most %d bytes, with Secrets, as they are sent", keptRoom)}
	}
	return nil
}

// sentBytes returns how many bytes a text has at most in JSON, without what is around it.
func sentBytes(text string) (n int) {
	for _, r := range text {
		if r < ' ' || strings.ContainsRune("\"\\<>&\u2028\u2029\x7f", r) {
			n += len(`\u0000`)
		} else {
			n += utf8.RuneLen(r)
		}
	}
	return n
}
