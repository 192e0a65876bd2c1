module github.com/tangle-network/microvm-runtime/tools

go 1.26.0

tool (
	golang.org/x/tools/gopls/internal/analysis/modernize/cmd/modernize
	honnef.co/go/tools/cmd/staticcheck
)

require gopkg.in/yaml.v3 v3.0.1

require (
	github.com/BurntSushi/toml v1.6.0 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	golang.org/x/exp/typeparams v0.0.0-20260611194520-c48552f49976 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.23.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	golang.org/x/tools/gopls v0.23.0 // indirect
	honnef.co/go/tools v0.8.2 // indirect
)
