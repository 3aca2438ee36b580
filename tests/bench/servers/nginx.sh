# nginx with one worker that answers "ok" on port $1; its files go to a folder of their own.
folder=$(mktemp -d)
cat >"$folder/nginx.conf" <<CONF
daemon off; worker_processes 1; error_log stderr; pid $folder/pid; user root;
events { worker_connections 512; }
http { access_log off; server { listen 127.0.0.1:$1; location / { return 200 "ok\n"; } } }
CONF
exec nginx -c "$folder/nginx.conf"
