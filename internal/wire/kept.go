package wire

import "strings"

// Bounds of what the agent keeps for commands.
const (
	MaxEnv        = 256 << 10 // Bytes of all variables.
	MaxVariable   = 64 << 10  // Bytes of one, name and value.
	MaxSecrets    = 64
	MaxSecret     = 64 << 10 // Bytes of one.
	maxSecretName = 64
)

// Env is the body of POST PathEnv. All of it is taken, or none.
type Env struct {
	Set map[string]string `json:"set"` // Variables of every command from now on, over those before. One without a value is deleted.
}

// Secrets is the answer to GET PathSecrets.
type Secrets struct {
	Names []string `json:"names"` // In order.
}

// ValidVariable says whether a variable's name is A–Z, a–z, 0–9 and _, and does not begin with a digit.
func ValidVariable(name string) bool {
	return name != "" && (name[0] < '0' || name[0] > '9') && len(name) <= MaxVariable && strings.IndexFunc(name, func(r rune) bool { return !isLetter(r) && r != '_' }) < 0
}

// ValidSecret says whether a secret's name is 1 to 64 of a–z, A–Z, 0–9, _ and -.
func ValidSecret(name string) bool {
	return len(name) >= 1 && len(name) <= maxSecretName && strings.IndexFunc(name, func(r rune) bool { return !isLetter(r) && r != '_' && r != '-' }) < 0
}

// isLetter says whether r is a letter or a digit of ASCII.
func isLetter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// MetadataPort is the vsock port of the older protocol for variables and secrets: a line of JSON each way.
const MetadataPort = 5555

// MaxLine bounds a line of it in bytes, without its end.
const MaxLine = 64 << 10

// MetadataRequest is a line from the host.
type MetadataRequest struct {
	Op    string            `json:"op"` // "set_env", "set_secret" or "ping".
	ID    string            `json:"id"` // Of the host's choice.
	Env   map[string]string `json:"env,omitempty"`
	Name  string            `json:"name,omitempty"`
	Value []byte            `json:"value_b64,omitempty"`
}

// MetadataReply is the answer to one.
type MetadataReply struct {
	ID    string `json:"id"` // The request's. Empty where the line was none.
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}
